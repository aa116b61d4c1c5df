"""From flags as given to a search to start, or to go on with; no data is read for it, and nothing heavy imported."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from search.chosen_space import absolute, chosen_space
from search.config_file import single_space, with_config_file
from search.flags import SAMPLERS, SCHEDULERS, default_tracking_uri
from search.pretrained import PRETRAINED, WEIGHTS, fetch, fetch_weights, leave_missing, leave_missing_weights
from search.settings import NewSearch, Resources, Resumption, SettingsError, check_name
from spaces.budget import Budget, budget_named
from spaces.corners import PATIENCE, stops_early
from spaces.errors import nearest
from spaces.paper_table import configurations
from spaces.parameter import Value
from spaces.presets import TABLES
from spaces.protocol import OWN_SPLITS, Protocol
from spaces.reference import reference_policies
from spaces.space import Space
from trainables.metrics.catalogue import SCORES, SECONDS

DEFAULT_CHECKPOINT_SECONDS = 60.0
DEFAULT_VALIDATION = 0.15
_FIXED_WHEN_RESUMED = (
    "space", "set", "budget", "data", "labels", "slice", "positive", "skip_bad_images", "folds", "leave_site_out",
    "split_file", "lock_test", "validation", "no_images", "seed", "metric", "sampler", "scheduler", "warm_start",
    "no_sharing", "max_copy_rate", "name",
)  # fmt: skip


def resources(given: Namespace) -> Resources:
    """What trials may use."""
    return Resources(
        concurrency=given.concurrency,
        cpus_per_trial=given.cpus_per_trial,
        gpus_per_trial=given.gpus_per_trial,
        address=given.address,
        time_budget=given.time_budget,
        checkpoint_seconds=given.checkpoint_every or DEFAULT_CHECKPOINT_SECONDS,
        stage_limit=given.stage_limit,
        progress=given.progress,
    )


def resumption(given: Namespace) -> Resumption:
    """The search to go on with. Raises: SettingsError."""
    for flag, value in {"--config": given.config, "--describe": given.describe}.items():
        if value:
            raise SettingsError(f"{flag} was given with --resume, which goes on with a search as it is; leave one out.")
    return Resumption(
        name=check_name(given.resume) if given.resume else None,
        storage=given.storage,
        trials=given.trials,
        repeats=given.repeats,
        given={name: value for name in _FIXED_WHEN_RESUMED if (value := _recorded_as(given, name)) is not None},
        tracking_uri=given.tracking_uri,
        confirm=not given.no_confirm,
        resources=resources(given),
    )


def _recorded_as(given: Namespace, name: str) -> object:
    """A flag's value as a search records it; None where it was not given."""
    value: object = getattr(given, name)
    if name == "metric" and isinstance(value, str):
        return ",".join(_metrics(value))
    if name == "warm_start" and isinstance(value, list):
        return list(dict.fromkeys(value))
    return value or None if name == "lock_test" else value


def new_search(given: Namespace) -> tuple[NewSearch, list[str]]:
    """The search to start, and a sentence for each consequence that the user may not expect. Raises: InputError."""
    config: dict[str, Value] | None = None
    if given.config is not None:
        given, config = with_config_file(given)
    budget = budget_named(given.budget or "quick")
    notes: list[str] = []
    if config is not None:
        space = single_space(config, budget.name, source=given.config)
    else:
        space, notes = chosen_space(given.space or "genmix", given.set or [], budget)
    table = TABLES.get(space.name)
    sampler = "tpe" if given.no_sharing else "reuse"
    metrics = _metrics(given.metric or (table.metric if table else "balanced_accuracy"))
    settings = NewSearch(
        space=space,
        budget=budget,
        data=given.data,
        labels=given.labels,
        slice_rule=given.slice,
        positive=given.positive,
        skip_bad_images=bool(given.skip_bad_images),
        trials=1 if config else given.trials or (configurations(space) if table else budget.trials),
        config=config,
        protocol=_protocol(given, space, budget),
        folds_given=given.folds is not None,
        split_file=_parts(given.split_file),
        lock_test=given.lock_test or None,
        show_images=not given.no_images,
        confirm=not given.no_confirm and config is None,
        seed=given.seed or 0,
        metric=metrics[0],
        further_metrics=metrics[1:],
        sampler=_one_of("--sampler", given.sampler or (table.sampler if table else sampler), SAMPLERS),
        scheduler=_one_of("--scheduler", given.scheduler or (table.scheduler if table else "racing"), SCHEDULERS),
        warm_start=tuple(check_name(name) for name in dict.fromkeys(given.warm_start or ())),
        sharing=not given.no_sharing,
        max_copy_rate=given.max_copy_rate,
        storage=given.storage,
        name=check_name(given.name) if given.name is not None else None,
        tracking_uri=given.tracking_uri or default_tracking_uri(),
        resources=resources(given),
    )
    _check_together(settings)
    if config is None and not table:
        notes += _only_references(settings)
    return settings, notes


def _only_references(settings: NewSearch) -> list[str]:
    """What a search does not say of its space that ends with the reference policies."""
    references = list(reference_policies(settings.space))
    if settings.trials > len(references):
        return []
    tried = ", ".join(references[: settings.trials])
    return [
        f"--trials {settings.trials}: reference policies alone ({tried}), which every search tries first; "
        f"from --trials {len(references) + 1} on the space itself is tried."
    ]


def _check_together(settings: NewSearch) -> None:
    """Raises: SettingsError where flags that are good alone exclude each other."""
    for flag, value in {"--labels": settings.labels, "--split-file": settings.split_file}.items():
        if value is not None and settings.data is None:
            raise SettingsError(f"{flag} was given without --data; name the folder of images with --data.")
    if settings.warm_start and settings.sampler not in ("reuse", "tpe"):
        raise SettingsError(
            f"--warm-start was given with the sampler '{settings.sampler}', which learns from no trial; use --sampler "
            f"reuse or tpe, or leave it out."
        )
    if settings.further_metrics and settings.scheduler == "asha":
        raise SettingsError(
            f"--scheduler asha compares trials by one score, and --metric names {1 + len(settings.further_metrics)}; "
            f"use racing or fifo."
        )
    if not settings.sharing and settings.sampler == "reuse":
        raise SettingsError(
            "--no-sharing leaves the sampler 'reuse' nothing to reuse; use --sampler tpe, random or grid with it."
        )
    if settings.split_file is not None and settings.lock_test is not None:
        raise SettingsError(
            "--lock-test and --split-file were both given; the part 'test' of the file is locked. Leave one out."
        )


def named_dimensions(fixed: Sequence[str]) -> set[str]:
    """The dimensions that ``--set`` names."""
    return {assignment.partition("=")[0].strip() for assignment in fixed}


def with_models(settings: NewSearch, named: set[str], *, trials_given: bool) -> tuple[NewSearch, tuple[str, ...]]:
    """The search without what needs a model that is not on this machine; models that were named are downloaded.

    Args:
        settings: the search.
        named: the dimensions that the user has fixed.
        trials_given: whether the user says how many trials; else a paper's table has as many as it has rows left.

    Returns:
        The search, and a sentence for each value that has left its space.

    Raises:
        InputError: what was named cannot be had, or nothing is left.
    """
    if PRETRAINED in named:
        fetch(settings.space)
    space, missing = leave_missing(settings.space, settings.budget, named=named)
    if WEIGHTS in named:
        fetch_weights(space)
    space, more = leave_missing_weights(space, settings.budget, named=named)
    if space.name in TABLES and not trials_given:
        settings = replace(settings, trials=configurations(space))
    return replace(settings, space=space), (*missing, *more)


def _parts(given: str | None) -> str | None:
    """A split file's path, found from every folder; "labels" means the labels' own column."""
    return given if given in (None, OWN_SPLITS) else absolute(given)


def _protocol(given: Namespace, space: Space, budget: Budget) -> Protocol:
    """What each trial is scored on, as far as it can be said without the data."""
    if given.folds == 1:
        raise SettingsError("--folds 1 leaves nothing to train on; give at least 2.")
    if given.leave_site_out and (given.folds is not None or given.split_file is not None):
        raise SettingsError(
            "--leave-site-out was given with --folds or --split-file; each of them divides the images. Leave one out."
        )
    needed = stops_early(space, budget)
    validation = (DEFAULT_VALIDATION if needed else 0.0) if given.validation is None else given.validation
    if validation and not needed:
        raise SettingsError(
            f"--validation {validation:g} cuts patients from training whom nothing reads; --set {PATIENCE}=10 lets the "
            f"classifier stop early, or leave it out."
        )
    if needed and not validation:
        raise SettingsError(
            f"--validation 0 leaves nothing for early stopping to read; give a share, or --set {PATIENCE}=0."
        )
    return Protocol(
        kind="sites" if given.leave_site_out else "folds",
        folds=1 if given.leave_site_out else given.folds or budget.folds,
        repeats=given.repeats or (TABLES[space.name].repeats[budget.name] if space.name in TABLES else 1),
        validation=validation,
    )


def _one_of(flag: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise SettingsError(f"{flag} '{value}' does not exist; {nearest(value, valid)}.")
    return value


def _metrics(text: str) -> tuple[str, ...]:
    """The names of one score or several; scores per class (sensitivity_CLASS) are checked once the data is read."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in (*SCORES, SECONDS) and not name.startswith(("sensitivity_", "specificity_")):
            raise SettingsError(f"--metric '{name}' does not exist; {nearest(name, (*SCORES, SECONDS))}.")
    if len(set(names)) < len(names):
        raise SettingsError(f"--metric {text} names a score twice; name each once.")
    if names[0] == SECONDS:
        raise SettingsError(
            f"--metric {text} begins with what trials cost; name the score to improve before it, as in "
            f"balanced_accuracy,{SECONDS}."
        )
    return names
