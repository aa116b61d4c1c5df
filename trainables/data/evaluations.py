"""Which trainings and tests a trial consists of: a protocol, carried out on a cohort."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from spaces.protocol import Protocol
from spaces.wording import counted
from trainables.data.cohort import Cohort
from trainables.data.near_duplicates import alike_across
from trainables.data.splits import FoldSplit, hold_out, make_folds
from trainables.errors import DataError
from trainables.seeding import stream


def evaluations(
    cohort: Cohort, protocol: Protocol, *, seed: int, locked: Collection[str] = ()
) -> tuple[FoldSplit, ...]:
    """Every training and test of a trial, in order.

    Args:
        cohort: the data set.
        protocol: how it is judged.
        seed: the search's seed.
        locked: ids of the locked test set; they are tested by the last ``protocol.test_repeats`` evaluations and
            take no part in the others, and neither does an image that shares a group with one of them or nearly
            equals it.

    Raises:
        DataError: the images cannot be divided so, or the cohort lacks locked images.
    """
    test = [index for index, entry in enumerate(cohort.entries) if entry.id in locked]
    absent = set(locked) - {cohort.entries[index].id for index in test} - {name for name, _ in cohort.bad_images}
    if absent or (protocol.test_repeats and not test):
        raise DataError(f"{len(absent)} of {len(set(locked))} locked images are not in the data set ({cohort.source}).")
    kept_back = {cohort.entries[index].group for index in test}
    alike = alike_across(cohort, locked)
    among = [
        index for index, entry in enumerate(cohort.entries) if entry.group not in kept_back and entry.id not in alike
    ]
    divide = {"folds": _folds, "sites": _sites, "split": _split}[protocol.kind]
    splits = [split for repeat in range(protocol.repeats) for split in divide(cohort, protocol, seed, repeat, among)]
    splits += [
        FoldSplit(
            fold=len(splits) + repeat,
            train=tuple(among),
            test=tuple(test),
            stream=f"test{repeat}",
            name=f"locked test, training {repeat + 1}",
            locked=True,
        )
        for repeat in range(protocol.test_repeats)
    ]
    return tuple(_with_validation(cohort, split, protocol.validation, seed) for split in splits)


def everything(cohort: Cohort, protocol: Protocol, *, seed: int, stream: str) -> FoldSplit:
    """A training on every image, without a test; early stopping keeps its validation patients.

    Args:
        cohort: the data set, without the locked test set.
        protocol: how much early stopping reads.
        seed: the search's seed.
        stream: names its random draws.

    Raises:
        DataError: the validation patients cannot be chosen.
    """
    split = FoldSplit(fold=0, train=tuple(range(len(cohort))), test=(), stream=stream, name=f"the {stream}")
    return _with_validation(cohort, split, protocol.validation, seed)


def _folds(cohort: Cohort, protocol: Protocol, seed: int, repeat: int, among: Sequence[int]) -> tuple[FoldSplit, ...]:
    return make_folds(cohort, folds=protocol.folds, seed=seed, repeat=repeat, among=among)


def _sites(cohort: Cohort, protocol: Protocol, seed: int, repeat: int, among: Sequence[int]) -> Iterator[FoldSplit]:
    """Each site tested by what the others taught; patients who were at the site teach nothing."""
    unknown = [cohort.entries[index].id for index in among if not cohort.entries[index].site]
    sites = sorted({cohort.entries[index].site for index in among})
    if unknown or len(sites) < 2:
        found = (
            f"{counted(len(unknown), 'image')} without a site, '{unknown[0]}' the first"
            if unknown
            else counted(len(sites), "site")
        )
        raise DataError(
            f"--leave-site-out needs a column 'site' with at least two sites; found {found} ({cohort.source}). "
            f"Fill the column, or leave the option out."
        )
    for number, site in enumerate(sites):
        test = [index for index in among if cohort.entries[index].site == site]
        groups = {cohort.entries[index].group for index in test}
        train = [index for index in among if cohort.entries[index].group not in groups]
        _check_classes(cohort, train, f"all sites but '{site}'")
        yield FoldSplit(
            fold=repeat * len(sites) + number,
            train=tuple(train),
            test=tuple(test),
            stream=f"repeat{repeat}/fold{number}",
            name=_name(repeat, f"site {site}"),
        )


def _split(cohort: Cohort, protocol: Protocol, seed: int, repeat: int, among: Sequence[int]) -> Iterator[FoldSplit]:
    """The training part teaches, the validation part is scored."""
    parts = {part: [index for index in among if cohort.entries[index].split == part] for part in ("train", "val")}
    shared = sorted(
        {cohort.entries[index].group for index in parts["train"]}
        & {cohort.entries[index].group for index in parts["val"]}
    )
    if shared:
        raise DataError(
            f"--split-file puts {counted(len(shared), 'patient')} into both train and val, '{shared[0]}' the first; "
            f"expected each patient in one part. Correct the file."
        )
    for part, chosen in parts.items():
        _check_classes(cohort, chosen, f"the part '{part}' of --split-file")
    yield FoldSplit(
        fold=repeat,
        train=tuple(parts["train"]),
        test=tuple(parts["val"]),
        stream=f"repeat{repeat}/fold0",
        name=_name(repeat, "validation part"),
    )


def _name(repeat: int, what: str) -> str:
    return what if repeat == 0 else f"repeat {repeat + 1}, {what}"


def _check_classes(cohort: Cohort, chosen: Sequence[int], where: str) -> None:
    missing = set(range(len(cohort.classes))) - {cohort.entries[index].label for index in chosen}
    if missing:
        raise DataError(
            f"{where} has no image of '{cohort.classes[min(missing)]}' ({cohort.source}); expected every class there."
        )


def _with_validation(cohort: Cohort, split: FoldSplit, share: float, seed: int) -> FoldSplit:
    """Cut the inner validation patients from the training side."""
    if share == 0:
        return split
    entries = [cohort.entries[index] for index in split.train]
    held = set(
        hold_out(
            [entry.label for entry in entries],
            [entry.group for entry in entries],
            share=share,
            seed=stream(seed, f"{split.stream}/validation"),
            what=f"the inner validation of {split.name}",
        )
    )
    return replace(
        split,
        train=tuple(index for position, index in enumerate(split.train) if position not in held),
        validation=tuple(index for position, index in enumerate(split.train) if position in held),
    )
