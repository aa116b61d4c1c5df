"""From what the user gave to a search on record: data read, names checked, versions noted, folder reserved."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from mlflow_tracking.connect import check_server, scheme, sqlite_path
from search.settings import NewSearch, SettingsError
from search.storage import reserve
from search.tuning import Allotment
from spaces.errors import nearest
from trainables.data.cohort import Cohort, read_cohort
from trainables.data.labels import positive_class
from trainables.data.phantom import PHANTOM_VERSION, write_phantom
from trainables.data.splits import make_folds
from trainables.ledger import SHARED, DataRecord, Ledger, SearchRecord
from trainables.metrics.catalogue import SCORES

_PACKAGES = (
    "genmix-search",
    "torch",
    "ray",
    "optuna",
    "mlflow",
    "scikit-learn",
    "numpy",
    "SimpleITK",
    "diffusers",
    "transformers",
)


def prepare(settings: NewSearch, allotment: Allotment, console: Console) -> Ledger:
    """Check everything that can be checked before a trial starts, and record the search.

    Raises: InputError, as one sentence, on the first thing that cannot be used; nothing is left behind then.
    """
    cohort = _read(settings, console)
    splits = make_folds(cohort, folds=settings.folds, seed=settings.seed)
    metric = _check_metric(settings.metric, cohort.classes)
    positive = _positive(settings.positive, cohort.classes)
    tracking_uri = absolute_uri(settings.tracking_uri)
    check_server(tracking_uri)
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
        metric=metric,
        seed=settings.seed,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        trials=settings.trials,
        threads=allotment.cpus,
        tracking_uri=tracking_uri,
        created=time.time(),
        versions=_versions(),
        max_copy_rate=settings.max_copy_rate,
    )
    ledger = Ledger(reserve(settings.storage, settings.name, settings.space.name))
    record = replace(record, name=ledger.folder.name)
    ledger.write_search(record)
    _introduce(console, record, cohort)
    return ledger


def absolute_uri(uri: str) -> str:
    """A tracking address that means the same from every folder: SQLite paths are made absolute.

    Raises: SettingsError if it holds a password, which would be written into the search's record.
    """
    if "@" in uri and urlsplit(uri).password:
        raise SettingsError(
            "--tracking-uri holds a password, which would be written into the search's record; leave it out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or PGPASSWORD for PostgreSQL) instead."
        )
    path = sqlite_path(uri) if scheme(uri) == "sqlite" else None
    return f"sqlite:///{path}" if path is not None else uri


def _read(settings: NewSearch, console: Console) -> Cohort:
    shared = settings.storage.resolve() / SHARED
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"--storage {settings.storage} cannot be written ({error.strerror}); name a folder that can."
        ) from None
    data = settings.data
    if data is None:
        data = write_phantom(shared / f"phantom-v{PHANTOM_VERSION}")
    with console.status("reading images") as status:
        return read_cohort(
            data,
            settings.labels,
            cache=shared / "images",
            skip_bad_images=settings.skip_bad_images,
            slice_rule=settings.slice_rule,
            is_phantom=settings.data is None,
            on_progress=lambda done, total: status.update(f"reading images {done}/{total}"),
        )


def _check_metric(metric: str, classes: tuple[str, ...]) -> str:
    valid = [*SCORES, *(f"{kind}_{name}" for kind in ("sensitivity", "specificity") for name in classes)]
    if metric not in valid:
        raise SettingsError(f"--metric '{metric}' does not exist for these classes; {nearest(metric, valid)}.")
    return metric


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


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _introduce(console: Console, record: SearchRecord, cohort: Cohort) -> None:
    """Say what is about to be searched, on what."""
    data = record.data
    counts = ", ".join(f"{name} {count}" for name, count in zip(data.classes, data.counts, strict=True))
    kind = "synthetic phantom data" if data.is_phantom else data.source
    whose = f"{data.patients} patients" if data.patients_known else "no patient column: each image counts as a patient"
    console.print(f"Search {record.name}: {record.trials} trials, {record.folds} folds, budget {record.budget}")
    console.print(f"Data: {kind}; {sum(data.counts)} images ({counts}), {whose}")
    if len(data.classes) == 2:
        console.print(f"Sensitivity is that of '{data.classes[data.positive]}' (--positive chooses)")
    if cohort.bad_images:
        console.print(f"{len(cohort.bad_images)} unreadable images are left out:", style="yellow")
        for path, reason in cohort.bad_images[:20]:
            console.print(f"  {path}: {reason}")
    if cohort.near_duplicates:
        pairs = len(cohort.near_duplicates)
        first, second = cohort.near_duplicates[0]
        console.print(
            f"{pairs} pairs of nearly equal images belong to different patients, {first} and {second} the first; "
            f"cohort.json lists them. If they show one patient, give both one name in the column 'patient'.",
            style="yellow",
        )


def images_folder(ledger: Ledger) -> Path:
    """Where the decoded images of a search lie."""
    return ledger.storage / SHARED / "images" / ledger.search().data.digest
