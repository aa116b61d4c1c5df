"""A search goes on with the data, the space and the budget that it was started with, or not at all."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.chosen_space import chosen_space
from search.flags import search_parser
from search.new_search import new_search, resumption
from search.settings import SettingsError
from search.unchanged import check_unchanged
from spaces.budget import budget_named
from spaces.space_file import space_from_file
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


def test_what_is_recorded_otherwise_than_it_is_written_has_not_changed(search: Ledger) -> None:
    record = replace(search.search(), further_metrics=("seconds",), warm_start=("a",), lock_test=None)
    search.write_search(record)
    flags = f"--resume s --metric '{record.metric}, seconds' --lock-test 0 --warm-start a --warm-start a"
    check_unchanged(search, resumption(search_parser({}).parse_args(shlex.split(flags))).given)


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


def test_a_new_search_is_started_with_all_that_the_old_one_was(search: Ledger) -> None:
    record = search.search()
    protocol = replace(record.protocol, repeats=2)
    further = {"max_copy_rate": 0.1, "show_images": False, "sampler": "random", "protocol": protocol}
    search.write_search(replace(record, source=replace(record.source, skip_bad_images=True), **further))
    command = refusal(search, seed=7).partition("learns from it: ")[2]
    given = search_parser({}).parse_args(shlex.split(command)[2:])
    settings, _ = new_search(given)
    assert (settings.seed, settings.metric, settings.protocol) == (7, record.metric, protocol)
    assert (settings.max_copy_rate, settings.show_images, settings.skip_bad_images) == (0.1, False, True)
    assert (settings.sampler, settings.warm_start, settings.name) == ("reuse", ("s",), None)


def test_other_splits_take_the_place_of_those_on_record(search: Ledger) -> None:
    command = refusal(search, leave_site_out=True).partition("learns from it: ")[2]
    assert "--leave-site-out" in command
    assert "--folds" not in command


def test_a_space_of_the_users_own_goes_on_and_is_named_by_its_file(search: Ledger) -> None:
    own, _ = chosen_space("genmix", ["generator.name=dcgan"], budget_named("quick"))
    search.write_search(replace(search.search(), space=replace(own, name="mine")))
    assert check_unchanged(search, {"set": ["generator.name=dcgan"]}) is None
    sentence = refusal(search, set=["affine=on"])
    assert "the space's affine was" in sentence
    path = search.folder / "space.yaml"
    assert f"--space {path} " in sentence
    assert space_from_file(path, source="").digest == search.search().space.digest


def test_a_space_of_another_name_is_told_by_its_name(search: Ledger) -> None:
    assert "--space was genmix and is dae_gan now. Go on" in refusal(search, space="dae_gan")


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
