"""From what the user gave to a search on record: data read, names checked, versions noted, folder reserved."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from mlflow_tracking.connect import check_server, has_password, scheme, sqlite_path
from search.allotment import Allotment
from search.attempt import check_cluster
from search.candidates import TEST_REPEATS, references_of
from search.settings import NewSearch, SettingsError
from search.storage import reserve
from search.storage_checks import probe_storage
from search.verdict import LEVEL
from search.versions import versions
from search.warm_start import find_earlier, in_words, keep_earlier
from spaces.errors import nearest
from spaces.protocol import Protocol
from spaces.wording import counted
from trainables.data.cohort import Cohort
from trainables.data.evaluations import evaluations
from trainables.data.labels import LabelTable
from trainables.data.locked import LockedTest, has_part, lock
from trainables.data.phantom import PHANTOM_VERSION, write_phantom
from trainables.data.positive import positive_class
from trainables.data.source import Source
from trainables.errors import DataError
from trainables.ledger import IMAGES, SHARED, DataRecord, Ledger, SearchRecord
from trainables.metrics.catalogue import OF_PATIENTS, PATIENT_SCORES, SCORES, SECONDS
from trainables.metrics.power import TYPICAL, detectable_difference, effective_images, locked_power


def prepare(settings: NewSearch, allotment: Allotment, console: Console) -> Ledger:
    """Check everything that can be checked before a trial starts, and record the search.

    Raises: InputError, as one sentence, on the first thing that cannot be used; nothing is left behind then.
    """
    cohort, locked, protocol, source = _read(settings, console)
    splits = evaluations(cohort, protocol, seed=settings.seed)
    for metric in (settings.metric, *settings.further_metrics):
        _check_metric(metric, cohort)
    positive = _positive(settings.positive, cohort.classes)
    tracking_uri = absolute_uri(settings.tracking_uri)
    check_server(tracking_uri)
    storage, installed = settings.storage.resolve(), versions()
    check_cluster(settings.resources, storage, storage / SHARED / IMAGES / cohort.digest, installed)
    record = SearchRecord(
        name="",
        space=settings.space,
        data=DataRecord(
            digest=cohort.digest,
            source=cohort.source,
            classes=cohort.classes,
            counts=cohort.counts,
            patients=cohort.n_patients,
            patients_known=cohort.patients_known,
            is_phantom=cohort.is_phantom,
            positive=positive,
            bad_images=cohort.bad_images,
        ),
        budget=settings.budget.name,
        folds=len(splits),
        protocol=protocol,
        show_images=settings.show_images,
        metric=settings.metric,
        further_metrics=settings.further_metrics,
        seed=settings.seed,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        trials=settings.trials,
        threads=allotment.cpus,
        tracking_uri=tracking_uri,
        created=time.time(),
        versions=installed,
        max_copy_rate=settings.max_copy_rate,
        sharing=settings.sharing,
        warm_start=settings.warm_start,
        source=source.absolute(),
        lock_test=settings.lock_test,
    )
    told = find_earlier(storage, record, has_locked_test=locked is not None)
    ledger = Ledger(reserve(settings.storage, settings.name, settings.space.name))
    record = replace(record, name=ledger.folder.name)
    if locked is not None:
        locked.write(ledger.folder)
    keep_earlier(ledger, told)
    ledger.write_search(record)
    if settings.config is not None:
        ledger.add_trial(settings.config, reference=None)
    _introduce(console, record, cohort, locked)
    for sentence in in_words(told):
        console.print(sentence)
    return ledger


def absolute_uri(uri: str) -> str:
    """A tracking address that means the same from every folder: SQLite paths are made absolute.

    Raises: SettingsError if it holds a password, which would be written into the search's record.
    """
    if has_password(uri):
        raise SettingsError(
            "--tracking-uri holds a password, which would be written into the search's record; leave it out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or PGPASSWORD for PostgreSQL) instead."
        )
    path = sqlite_path(uri) if scheme(uri) == "sqlite" else None
    return f"sqlite:///{path}" if path is not None else uri


def check_storage(storage: Path) -> None:
    """Raises: SettingsError if a folder cannot hold searches."""
    wrong = probe_storage(storage)
    if wrong is not None:
        raise SettingsError(f"--storage {storage} cannot be used ({wrong}); mend that, or name another folder.")


def open_images(ledger: Ledger, console: Console) -> Path:
    """The folder of decoded images, checked, of a search or a confirmation, which has the locked ones among them.

    Where they have gone, or are damaged, they are read again from where they came from.

    Raises: DataError if they can be read nowhere, or are others.
    """
    folder, record = images_folder(ledger), ledger.search()
    try:
        Cohort.load(folder).check()
    except DataError:
        source = record.source
        if source is None or not Path(source.data).exists():
            raise
        table, locked = source.table(), LockedTest.read(ledger.folder)
        if locked is not None and not record.protocol.test_repeats:
            table = table.part(locked.ids, inside=False)
        if source.digest(table) != record.data.digest:
            raise DataError(
                f"the decoded images of '{record.name}' are gone or damaged ({folder}), and those of "
                f"'{source.data}' are not the ones that it was started with; restore either, or start a new search."
            ) from None
        _decode(source, table, folder.parent, console)
    return folder


def _decode(source: Source, table: LabelTable, cache: Path, console: Console) -> Cohort:
    with console.status("reading images") as status:
        return source.decode(
            table, cache=cache, on_progress=lambda done, total: status.update(f"reading images {done}/{total}")
        )


def _read(settings: NewSearch, console: Console) -> tuple[Cohort, LockedTest | None, Protocol, Source]:
    """The images that the search may see, what was locked away before, how trials are judged, and whence they come."""
    shared = settings.storage.resolve() / SHARED
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"--storage {settings.storage} cannot be written ({error.strerror}); name a folder that can."
        ) from None
    check_storage(settings.storage)
    data = settings.data
    if data is None:
        data = write_phantom(shared / f"phantom-v{PHANTOM_VERSION}")
    source = Source(
        data=str(data),
        labels=settings.labels,
        split_file=settings.split_file,
        slice_rule=settings.slice_rule,
        skip_bad_images=settings.skip_bad_images,
        is_phantom=settings.data is None,
    )
    table = source.table()
    locked = lock(table, source, share=settings.lock_test, seed=settings.seed)
    protocol = settings.protocol
    if settings.split_file is not None and has_part(table, "val"):
        if settings.folds_given:
            raise SettingsError(
                "--folds was given with a --split-file that has a part 'val'; trials are scored on it. Leave one out."
            )
        protocol = replace(protocol, kind="split", folds=1)
    searched = table if locked is None else table.part(locked.ids, inside=False)
    return _decode(source, searched, shared / IMAGES, console), locked, protocol, source


def _check_metric(metric: str, cohort: Cohort) -> None:
    if metric in PATIENT_SCORES and not cohort.patients_known:
        raise SettingsError(
            f"--metric '{metric}' scores patients, and the data have no column 'patient' ({cohort.source}); add it, or "
            f"use --metric {metric.removeprefix(OF_PATIENTS)}."
        )
    valid = [
        *SCORES,
        SECONDS,
        *(f"{kind}_{name}" for kind in ("sensitivity", "specificity") for name in cohort.classes),
    ]
    if metric not in valid:
        raise SettingsError(f"--metric '{metric}' does not exist for these classes; {nearest(metric, valid)}.")


def _positive(given: str | None, classes: tuple[str, ...]) -> int:
    """Index of the diseased class of two; with more classes there is none, and no score looks at it."""
    if len(classes) > 2:
        if given is not None:
            raise SettingsError(
                f"--positive '{given}' was given with {len(classes)} classes; it is for two. Scores of each class are "
                f"named sensitivity_CLASS and specificity_CLASS."
            )
        return 0
    if given is None:
        return positive_class(classes)
    if given not in classes:
        raise SettingsError(f"--positive '{given}' is no class of the data; {nearest(given, classes)}.")
    return classes.index(given)


def judged(record: SearchRecord) -> str:
    """What each trial is scored on, in a few words."""
    protocol = record.protocol
    each = record.folds // protocol.repeats
    words = {
        "folds": counted(each, "fold"),
        "sites": f"{each} sites, each left out in turn",
        "split": "one fixed split",
    }
    text = words[protocol.kind] + (f", {protocol.repeats} repeats" if protocol.repeats > 1 else "")
    return text + (
        f", {protocol.validation:.0%} of the training patients for early stopping" * bool(protocol.validation)
    )


def _introduce(console: Console, record: SearchRecord, cohort: Cohort, locked: LockedTest | None) -> None:
    """Say what is about to be searched, on what."""
    data = record.data
    counts = ", ".join(f"{name} {count}" for name, count in zip(data.classes, data.counts, strict=True))
    kind = "synthetic phantom data" if data.is_phantom else data.source
    whose = (
        counted(data.patients, "patient")
        if data.patients_known
        else "no patient column: each image counts as a patient"
    )
    console.print(f"Search {record.name}: {counted(record.trials, 'trial')}, {judged(record)}, budget {record.budget}")
    console.print(f"Data: {kind}; {counted(sum(data.counts), 'image')} ({counts}), {whose}")
    if len(data.classes) == 2:
        console.print(f"Sensitivity is that of '{data.classes[data.positive]}' (--positive chooses)")
    if locked is not None:
        console.print(_lock_in_words(locked, references=len(references_of(record.space))))
    if cohort.bad_images:
        console.print(f"Left out: {counted(len(cohort.bad_images), 'unreadable image')}", style="yellow")
        for path, reason in cohort.bad_images[:20]:
            console.print(f"  {path}: {reason}")
    if cohort.near_duplicates:
        pairs = len(cohort.near_duplicates)
        first, second = cohort.near_duplicates[0]
        console.print(
            f"Nearly equal images of different patients: {counted(pairs, 'pair')}, {first} and {second} the first; "
            f"cohort.json lists them. If they show one patient, give both one name in the column 'patient'.",
            style="yellow",
        )


def _lock_in_words(locked: LockedTest, *, references: int) -> str:
    """What was locked away, and how small a difference it can show, for one comparison and for all of them."""
    counts = ", ".join(f"{name} {count}" for name, count in zip(locked.classes, locked.counts, strict=True))
    images_C = effective_images(locked.labels, locked.patients, len(locked.classes), correlation=TYPICAL.correlation)
    smallest, among_all = (
        detectable_difference(
            partial(locked_power, images_C=images_C, disagreement=TYPICAL, models=TEST_REPEATS, level=LEVEL / count)
        )
        for count in (1, references)
    )
    power = (
        f"With 80 % power it shows a difference in balanced accuracy of {smallest:.3f} or more to one reference"
        + (f", of {among_all:.3f} to any of {references}" if among_all is not None else "")
        + f"; a smaller one will usually be missed (where two policies disagree on {TYPICAL.between:.0%} of the images)"
        if smallest is not None
        else "It is too small to show any difference with 80 % power"
    )
    return (
        f"Locked test set: {counted(len(locked.ids), 'image')} ({counts}) of "
        f"{counted(len(set(locked.patients)), 'patient')}, which no trial sees and only a confirmation opens. {power}."
    )


def images_folder(ledger: Ledger) -> Path:
    """Where the decoded images of a search lie."""
    return ledger.storage / SHARED / IMAGES / ledger.search().data.digest
