"""A search is told of earlier ones on the same data, keeps what it was told, and knows which scores are comparable."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from search.settings import SettingsError
from search.warm_start import find_earlier, in_words, keep_earlier, kept_earlier
from tests.trainables.test_ledger import fold, made_up_record
from trainables.ledger import Ledger, SearchRecord


def earlier_search(storage: Path, name: str, record: SearchRecord) -> Ledger:
    ledger = Ledger(storage / name)
    ledger.folder.mkdir(parents=True)
    ledger.write_search(replace(record, name=name))
    for state in ("completed", "unfinished"):
        trial_id = ledger.add_trial({"affine": state == "completed"}, reference=None)
        ledger.record_fold(trial_id, fold(0, auroc=0.7))
        if state == "completed":
            ledger.end_trial(trial_id, "completed")
    return ledger


def test_what_a_search_is_told_stays_with_it(tmp_path: Path) -> None:
    record = replace(made_up_record(), warm_start=("old",))
    old = earlier_search(tmp_path, "old", made_up_record())
    told = find_earlier(tmp_path, record, has_locked_test=True)
    assert [(each.search, each.same_fidelity, each.trial.config) for each in told] == [("old", True, {"affine": True})]
    new = Ledger(tmp_path / "new")
    new.folder.mkdir()
    keep_earlier(new, told)
    shutil.rmtree(old.folder)
    assert kept_earlier(new) == told
    assert kept_earlier(Ledger(tmp_path)) == []
    assert in_words(told) == ["Warm start: the sampler knows 1 trial of old; their scores are of the same fidelity."]


@pytest.mark.parametrize(
    "change", [{"budget": "standard"}, {"seed": 2}, {"threads": 2}, {"folds": 5}, {"sharing": False}]
)
def test_scores_of_another_fidelity_are_marked(tmp_path: Path, change: dict[str, object]) -> None:
    earlier_search(tmp_path, "old", replace(made_up_record(), **change))
    told = find_earlier(tmp_path, replace(made_up_record(), warm_start=("old",)), has_locked_test=True)
    assert [each.same_fidelity for each in told] == [False]
    assert "of another fidelity" in in_words(told)[0]


def test_a_search_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--warm-start old: no search was found"):
        find_earlier(tmp_path, replace(made_up_record(), warm_start=("old",)), has_locked_test=False)


def test_a_search_of_other_images_is_of_another_fidelity_and_may_not_have_seen_what_is_locked(tmp_path: Path) -> None:
    record = replace(made_up_record(), warm_start=("old",))
    other = replace(made_up_record().data, digest="other")
    earlier_search(tmp_path, "old", replace(made_up_record(), data=other))
    assert [each.same_fidelity for each in find_earlier(tmp_path, record, has_locked_test=False)] == [False]
    with pytest.raises(SettingsError, match=r"is a search of other images .* may have seen what this one locks away"):
        find_earlier(tmp_path, record, has_locked_test=True)


def test_a_search_of_other_classes_is_refused(tmp_path: Path) -> None:
    record = replace(made_up_record(), warm_start=("old",))
    other = replace(made_up_record().data, digest="other", classes=("a", "c"))
    earlier_search(tmp_path, "old", replace(made_up_record(), data=other))
    with pytest.raises(SettingsError, match="of the classes a, c, and this one has a, b"):
        find_earlier(tmp_path, record, has_locked_test=False)
