"""A search goes on with the data, the space and the budget that it was started with, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.chosen_space import chosen_space
from search.settings import SettingsError
from search.unchanged import check_unchanged
from spaces.budget import budget_named
from tests.trainables.test_ledger import made_up_record
from trainables.data.source import Source
from trainables.ledger import Ledger


@pytest.fixture
def search(tmp_path: Path) -> Ledger:
    """A search of four files; whether they are images matters to nobody here."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(4):
        (data / f"{number}.png").write_bytes(bytes([number]) * 10)
    rows = "".join(f"{number}.png,{'ab'[number % 2]},p{number}\n" for number in range(4))
    (data / "labels.csv").write_text(f"path,label,patient\n{rows}")
    source = Source(data=str(data))
    digest = source.digest(source.table())
    space, _ = chosen_space("genmix", [], budget_named("quick"))
    record = made_up_record()
    known = replace(record.data, digest=digest, counts=(2, 2), bad_images=())
    ledger = Ledger(tmp_path / "searches" / "s")
    ledger.folder.mkdir(parents=True)
    ledger.write_search(replace(record, space=space, data=known, source=source))
    return ledger


def refusal(search: Ledger, **given: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        check_unchanged(search, given)
    return str(caught.value)


def test_a_search_goes_on_where_nothing_has_changed(search: Ledger) -> None:
    assert check_unchanged(search, {}) is None
    same = {"budget": "quick", "seed": 1, "metric": "auroc", "data": Path(search.search().source.data), "folds": 3}
    assert check_unchanged(search, same) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"budget": "standard"}, "--budget was quick and is standard now"),
        ({"seed": 2}, "--seed was 1 and is 2 now"),
        ({"metric": "auroc,seconds"}, "--metric was auroc and is auroc,seconds now"),
        ({"folds": 5}, "--folds was 3 and is 5 now (other folds are other splits; --repeats adds folds)"),
        ({"no_sharing": True}, "--no-sharing was off and is on now"),
        ({"positive": "a"}, "--positive was b and is a now"),
        ({"max_copy_rate": 0.1}, "--max-copy-rate was not given and is 0.1 now"),
        ({"lock_test": 0.2}, "--lock-test was not given and is 0.2 now"),
        ({"name": "t"}, "--name was s and is t now"),
    ],
)
def test_what_differs_is_named_with_the_command_that_starts_a_new_search(
    search: Ledger, given: dict[str, Any], words: str
) -> None:
    sentence = refusal(search, **given)
    assert words in sentence
    assert f"--warm-start s --storage {search.storage}" in sentence


def test_every_difference_is_named(search: Ledger) -> None:
    sentence = refusal(search, budget="standard", seed=2)
    assert "--budget was quick and is standard now; --seed was 1 and is 2 now" in sentence
    assert "--space genmix --budget standard --data" in sentence


def test_another_space_is_refused_dimension_by_dimension(search: Ledger) -> None:
    sentence = refusal(search, set=["mixer.name=mixup"])
    assert "the space's mixer.name was (" in sentence
    assert "the space's generator.name was (" in sentence
    assert "is absent now" in sentence
    assert "affine" not in sentence


def test_changed_bytes_more_images_and_other_labels_are_refused(search: Ledger) -> None:
    data = Path(search.search().source.data)
    whole = (data / "labels.csv").read_text()
    (data / "0.png").write_bytes(b"other")
    assert "have changed (there are 4 as before; bytes differ)" in refusal(search)
    (data / "0.png").write_bytes(bytes(10))
    assert check_unchanged(search, {}) is None
    (data / "labels.csv").write_text(whole.replace("3.png,b", "3.png,a"))
    assert "have changed" in refusal(search)
    (data / "labels.csv").write_text(whole.rpartition("3.png")[0])
    assert "it knew 4 images, and finds 3" in refusal(search)


def test_images_that_have_gone_are_said_and_not_needed(search: Ledger) -> None:
    data = Path(search.search().source.data)
    data.rename(data.with_name("elsewhere"))
    note = check_unchanged(search, {})
    assert note is not None
    assert "goes on with those that it has decoded" in note
    assert check_unchanged(search, {"data": data.with_name("elsewhere")}) is None
