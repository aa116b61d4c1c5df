"""Which trainings and tests a trial consists of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from spaces.errors import ConfigError
from spaces.protocol import Protocol
from tests.trainables.data.test_splits import cohort_of, uneven
from trainables.data.cohort import Cohort
from trainables.data.evaluations import evaluations
from trainables.data.splits import FoldSplit, hold_out, make_folds
from trainables.errors import DataError


def patients(cohort: Cohort, indices: tuple[int, ...]) -> set[str]:
    return {cohort.entries[index].group for index in indices}


def check_clean(cohort: Cohort, split: FoldSplit) -> None:
    parts = [patients(cohort, part) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))


def sited(cohort: Cohort, sites: dict[str, str]) -> Cohort:
    entries = tuple(replace(entry, site=sites[entry.patient]) for entry in cohort.entries)
    return replace(cohort, entries=entries)


def test_folds_without_repeats_are_those_of_make_folds() -> None:
    cohort = uneven()
    assert evaluations(cohort, Protocol(folds=5), seed=3) == make_folds(cohort, folds=5, seed=3)


def test_repeats_split_afresh_and_draw_from_streams_of_their_own() -> None:
    cohort = uneven()
    splits = evaluations(cohort, Protocol(folds=4, repeats=3), seed=0)
    assert [split.fold for split in splits] == list(range(12))
    assert len({split.stream for split in splits}) == 12
    assert len({split.test for split in splits}) == 12
    for repeat in range(3):
        tested = Counter(index for split in splits[4 * repeat : 4 * repeat + 4] for index in split.test)
        assert tested == Counter(range(len(cohort)))


def test_inner_validation_is_cut_from_the_training_side_by_patients() -> None:
    cohort = uneven(n_minority=15)
    plain = evaluations(cohort, Protocol(folds=5), seed=0)
    for split, whole in zip(evaluations(cohort, Protocol(folds=5, validation=0.15), seed=0), plain, strict=True):
        check_clean(cohort, split)
        assert split.test == whole.test
        assert sorted(split.train + split.validation) == list(whole.train)
        assert 0.08 < len(split.validation) / len(whole.train) < 0.25
        assert {cohort.entries[index].label for index in split.validation} == {0, 1}


def test_locked_images_and_all_that_shares_a_group_with_them_take_no_part_in_the_folds() -> None:
    cohort = uneven()
    entries = tuple(replace(each, group="p00") if each.patient == "p01" else each for each in cohort.entries)
    cohort = replace(cohort, entries=entries)
    locked = {entry.id for entry in cohort.entries if entry.patient in ("p00", "p10", "p20")}
    splits = evaluations(cohort, Protocol(folds=3, test_repeats=2), seed=0, locked=locked)
    assert [split.locked for split in splits] == [False] * 3 + [True] * 2
    for split in splits:
        check_clean(cohort, split)
        seen = patients(cohort, split.train) | (set() if split.locked else patients(cohort, split.test))
        assert not seen & {"p00", "p10", "p20"}
    for split in splits[3:]:
        assert {cohort.entries[index].id for index in split.test} == locked
        assert len(split.train) == sum(entry.group not in ("p00", "p10", "p20") for entry in cohort.entries)


def test_an_image_that_nearly_equals_a_locked_one_teaches_nothing() -> None:
    cohort = uneven()
    locked = {entry.id for entry in cohort.entries if entry.patient in ("p00", "p20")}
    cohort = replace(cohort, near_duplicates=(("p00/0", "p30/1"), ("p31/0", "p32/0")))
    for split in evaluations(cohort, Protocol(folds=3, test_repeats=1), seed=0, locked=locked):
        taught = {cohort.entries[index].id for index in split.train}
        assert "p30/1" not in taught
        assert "p30/0" in taught or not split.locked


def test_locked_images_that_are_not_there_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 1 locked images are not in the data set"):
        evaluations(uneven(), Protocol(folds=3, test_repeats=1), seed=0, locked={"gone"})


def test_each_site_is_tested_by_what_the_others_taught() -> None:
    cohort = cohort_of({f"p{i:02d}": ("ab"[i % 2], 2) for i in range(12)})
    cohort = sited(cohort, {f"p{i:02d}": ("Basel", "Bern", "Zug")[i // 4] for i in range(12)})
    splits = evaluations(cohort, Protocol(kind="sites", repeats=2), seed=0)
    assert [split.name for split in splits[:4]] == ["site Basel", "site Bern", "site Zug", "repeat 2, site Basel"]
    for split in splits:
        check_clean(cohort, split)
        assert len({cohort.entries[index].site for index in split.test}) == 1
        assert sorted(split.train + split.test) == list(range(len(cohort)))


def test_a_patient_of_two_sites_teaches_neither_while_one_is_tested() -> None:
    cohort = cohort_of({f"p{i:02d}": ("ab"[i % 2], 2) for i in range(12)})
    cohort = sited(cohort, {f"p{i:02d}": "Basel" if i < 6 else "Bern" for i in range(12)})
    moved = tuple(replace(e, site="Bern") if e.id == "p00/1" else e for e in cohort.entries)
    for split in evaluations(replace(cohort, entries=moved), Protocol(kind="sites"), seed=0):
        assert "p00" not in patients(cohort, split.train)


@pytest.mark.parametrize(("sites", "found"), [({"p00": ""}, "4 images without a site"), ({}, "found 1 site")])
def test_sites_must_be_known_and_two(sites: dict[str, str], found: str) -> None:
    cohort = cohort_of({f"p{i:02d}": ("ab"[i % 2], 4) for i in range(6)})
    with pytest.raises(DataError, match=found):
        evaluations(sited(cohort, {f"p{i:02d}": "Basel" for i in range(6)} | sites), Protocol(kind="sites"), seed=0)


def parted(cohort: Cohort, train: set[str]) -> Cohort:
    entries = tuple(replace(each, split="train" if each.patient in train else "val") for each in cohort.entries)
    return replace(cohort, entries=entries)


def test_a_fixed_split_trains_on_train_and_scores_val() -> None:
    cohort = cohort_of({f"p{i:02d}": ("ab"[i % 2], 2) for i in range(12)})
    train = {f"p{i:02d}" for i in range(8)}
    first, second = evaluations(parted(cohort, train), Protocol(kind="split", repeats=2), seed=0)
    assert (first.train, first.test) == (second.train, second.test)
    assert first.stream != second.stream
    assert patients(cohort, first.train) == train


def test_a_patient_in_two_parts_of_a_fixed_split_is_refused() -> None:
    cohort = cohort_of({f"p{i:02d}": ("ab"[i % 2], 2) for i in range(12)})
    cohort = parted(cohort, {f"p{i:02d}" for i in range(8)})
    entries = tuple(replace(each, split="val") if each.id == "p00/1" else each for each in cohort.entries)
    with pytest.raises(DataError, match="1 patient into both train and val, 'p00'"):
        evaluations(replace(cohort, entries=entries), Protocol(kind="split"), seed=0)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_out_is_about_the_share_of_every_class_in_whole_groups(share: float, seed: int) -> None:
    cohort = uneven(n_minority=15)
    groups = [entry.group for entry in cohort.entries]
    chosen = hold_out(cohort.labels, groups, share=share, seed=seed, what="a test")
    held = {groups[index] for index in chosen}
    assert sorted(chosen) == [index for index, group in enumerate(groups) if group in held]
    for label, total in enumerate(cohort.counts):
        count = sum(cohort.labels[index] == label for index in chosen)
        assert abs(count / total - share) < 0.08


def test_holding_out_does_not_depend_on_the_order_of_images() -> None:
    cohort = uneven()
    groups = [entry.group for entry in cohort.entries]
    chosen = hold_out(cohort.labels, groups, share=0.2, seed=1, what="a test")
    back = hold_out(cohort.labels[::-1], groups[::-1], share=0.2, seed=1, what="a test")
    assert sorted(len(groups) - 1 - index for index in back) == list(chosen)


def test_a_class_of_one_patient_cannot_be_held_out() -> None:
    cohort = cohort_of({"p0": ("a", 5), "p1": ("b", 5), "p2": ("b", 5)})
    with pytest.raises(DataError, match="cannot be held out for a test with every class on both sides"):
        hold_out(cohort.labels, [each.group for each in cohort.entries], share=0.3, seed=0, what="a test")


@pytest.mark.parametrize(
    ("patients", "share", "found", "enough"),
    [
        ((3, 3), 0.15, "1 patient; expected at least 2", "0.33 or more"),
        ((4, 4, 4), 0.15, "2 patients; expected at least 3", "0.25 or more"),
        ((2, 20), 0.15, "4 patients; expected at least 6", "0.27 or more"),
        ((2, 3, 9), 0.9, "13 patients; expected at most 9", "0.64 or less"),
    ],
)
def test_a_share_that_cannot_reach_every_class_is_refused_with_one_that_does(
    patients: tuple[int, ...], share: float, found: str, enough: str
) -> None:
    labels = [label for label, count in enumerate(patients) for _ in range(count)]
    names = [f"p{number}" for number in range(len(labels))]
    with pytest.raises(
        DataError, match=rf"both sides: that is {found}, .*Give {enough} \(--validation or --lock-test\)"
    ):
        hold_out(labels, names, share=share, seed=0, what="a test")
    chosen = hold_out(labels, names, share=float(enough.split()[0]), seed=0, what="a test")
    assert {labels[index] for index in chosen} == set(labels)


def test_only_a_class_of_one_patient_is_said_to_have_too_few() -> None:
    with pytest.raises(DataError, match="expected at least 2 patients of each class"):
        hold_out([0, 1, 1, 1], list("abcd"), share=0.25, seed=0, what="a test")
    with pytest.raises(DataError, match=r"no choice of whole patients was found\. Add patients"):
        hold_out([0, 0, 1, 1, 2, 2], list("acabbc"), share=0.4, seed=0, what="a test")


@pytest.mark.parametrize(
    "wrong",
    [{"folds": 1}, {"folds": 3, "repeats": 0}, {"folds": 3, "validation": 0.6}, {"folds": 3, "test_repeats": -1}],
)
def test_a_protocol_that_cannot_be_carried_out_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Protocol(**wrong)  # type: ignore[arg-type]
