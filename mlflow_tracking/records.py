"""What is logged of a record: its tags, parameters and metrics, as functions of the record alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Metric, Param

from mlflow_tracking import names, notes
from mlflow_tracking.remote import search_id
from mlflow_tracking.sharing import Sharing, generators
from trainables.files import read_json
from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import maximizes
from trainables.results import FoldResult, TrialResult

_DECIMALS = 6
"""Of a trial's means and spreads; the record has all digits."""


def common_tags(search: SearchRecord, whole: SearchRecord) -> dict[str, str]:
    """Tags of every run: which search, on what data and in which space, with which versions.

    Args:
        search: what the run is of: a search or a confirmation.
        whole: the search, which its confirmations belong to.
    """
    return {
        names.SEARCH: whole.name,
        names.SEARCH_ID: search_id(whole),
        names.DATA_DIGEST: search.data.digest,
        names.SPACE_DIGEST: search.space.digest,
        names.BUDGET: search.budget,
        names.PHANTOM: "yes" if search.data.is_phantom else "no",
        **{names.version(package): version for package, version in search.versions.items()},
    }


def parameters(search: SearchRecord, trial: TrialResult) -> list[Param]:
    """A trial's configuration, what holds in place of settings that it does not have, and which reference it is."""
    otherwise = {each.name: each.otherwise for each in search.space.dimensions if each.otherwise is not None}
    given = {**otherwise, **trial.config, names.REFERENCE: trial.reference or names.NO_REFERENCE}
    return [Param(names.valid_name(name), names.parameter_value(value)) for name, value in given.items()]


def search_parameters(search: SearchRecord) -> list[Param]:
    """What defines a search."""
    given = {
        "space": search.space.name,
        "budget": search.budget,
        "protocol": search.protocol.kind,
        "repeats": search.protocol.repeats,
        "folds": search.folds,
        "metric": search.metric,
        "seed": search.seed,
        "sampler": search.sampler,
        "scheduler": search.scheduler,
        "max_copy_rate": "none" if search.max_copy_rate is None else search.max_copy_rate,
        "threads": search.threads,
        "classes": ", ".join(search.data.classes),
        "images": sum(search.data.counts),
        "patients": search.data.patients if search.data.patients_known else "unknown",
    }
    return [Param(name, names.parameter_value(value)) for name, value in given.items()]


def fold_metrics(trial: TrialResult, fold: FoldResult) -> list[Metric]:
    """A fold's scores at a time that follows from the record, so that a replay gives the same.

    It is a second after that of the fold before, whatever the folds took: they may be computed in another order.
    """
    when = milliseconds(trial.created + fold.fold + 1)
    fidelity = {names.fidelity(measure): value for measure, value in fold.fidelity.items()}
    values = {**fold.scores, **fidelity, names.SECONDS: fold.seconds}
    named = names.per_training if fold.locked else names.per_fold
    return [Metric(named(name), value, when, fold.fold) for name, value in values.items() if value is not None]


def summary(trial: TrialResult) -> list[Metric]:
    """A finished trial's means and spreads over its folds; nothing for one that may still change.

    The step is the number of folds, so that a trial that is given more of them later shows what it has come to. The
    values are rounded to six decimals, as the runs page shows every digit that it is given.
    """
    if trial.state == "unfinished":
        return []
    values: dict[str, float | None] = {}
    for name, summary in trial.scores.items():
        values |= {names.score(name): summary.mean, names.spread(name): summary.std}
    for name, interval in trial.intervals.items():
        values |= {names.low(name): interval.low, names.high(name): interval.high}
    for name, summary in trial.locked_scores.items():
        values |= {names.locked(name): summary.mean, names.spread(f"{names.LOCKED}_{name}"): summary.std}
    for measure, summary in trial.fidelity.items():
        values[names.fidelity(measure)] = summary.mean
        over_folds = names.fidelity_spread(measure)
        if over_folds is not None:
            values[over_folds] = summary.std
    values |= {
        names.FOLDS_DONE: float(len(trial.folds)),
        names.SECONDS: sum(fold.seconds for fold in trial.folds),
        names.COST_SECONDS: sum(stage.seconds for fold in trial.folds for stage in fold.stages),
        names.GENERATOR_SECONDS: sum(stage.seconds for stage in generators(trial)) or None,
        names.PEAK_MIB: max((fold.peak_bytes for fold in trial.folds), default=0) / 2**20,
    }
    when = milliseconds(trial.ended or trial.created)
    known = {name: round(value, _DECIMALS) for name, value in values.items() if value is not None}
    return [Metric(name, value, when, len(trial.folds)) for name, value in known.items()]


def place(search: SearchRecord, metric: str) -> int:
    """Where a metric stands among those that are logged together: MLflow's compare page opens on the first."""
    first = (names.score(search.metric), names.per_fold(search.metric), names.per_training(search.metric))
    return first.index(metric) if metric in first else len(first)


def ending(search: SearchRecord, trial: TrialResult, standing: str, sharing: Sharing) -> dict[str, str]:
    """Tags that say where a trial stands and, once it has ended, how."""
    tags = {names.STATE: standing}
    if trial.state != "unfinished":
        tags[names.NOTE] = trial_note(search, trial, sharing)
    if trial.error and trial.state == "failed":
        tags[names.ERROR] = trial.error
    return tags


def trial_note(search: SearchRecord, trial: TrialResult, sharing: Sharing) -> str:
    """A trial run's note: how it ended, and what its generators cost and who else used them."""
    told = (notes.trial_note(search, trial), sharing.sentence(trial))
    return names.shortened("\n\n".join(filter(None, told)))


def course(search: SearchRecord, trials: Sequence[TrialResult], *, after: int = 0) -> list[Metric]:
    """The search's course: after each trial that ended, how many ended how, and the best score so far.

    Args:
        search: the search.
        trials: all of it.
        after: leave out the first so many steps.
    """
    metrics: list[Metric] = []
    counts = dict.fromkeys((names.TRIALS_COMPLETED, names.TRIALS_PRUNED, names.TRIALS_FAILED), 0)
    best: float | None = None
    better = max if maximizes(search.metric) else min
    ended = sorted((each for each in trials if each.ended is not None), key=lambda each: (each.ended, each.id))
    for step, trial in enumerate(ended, start=1):
        when = milliseconds(trial.ended or 0)
        counts[f"trials_{trial.state}"] += 1
        mean = notes.completed_mean(search, trial)
        if mean is not None:
            best = mean if best is None else better(best, mean)
        if step <= after:
            continue
        metrics += [Metric(name, float(count), when, step) for name, count in counts.items()]
        if best is not None:
            metrics.append(Metric(names.best(search.metric), best, when, step))
    return metrics


def milliseconds(seconds: float) -> int:
    """A time as MLflow counts it."""
    return round(seconds * 1000)


def verdict(folder: Path) -> str | None:
    """What a search's confirmation found, in one text; None where there is none that can be read."""
    sentences = verdict_sentences(folder)
    return " ".join(sentences) if sentences else None


def verdict_sentences(folder: Path) -> tuple[str, ...]:
    """What a search's confirmation found, a sentence each; empty where there is none that can be read."""
    try:
        return tuple(map(str, read_json(folder / names.CONFIRMATION_FILE)["sentences"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def commands(folder: Path) -> str | None:
    """The commands that run a search again; None where they were not written yet."""
    try:
        return (folder / names.COMMANDS_FILE).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None
