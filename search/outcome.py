"""What a search ends in: ranking, ``result.json``, ``best.yaml`` and the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from mlflow_tracking.names import CONFIRMATION_FILE, PARETO_FILE, RATIO_FILE, TABLE_FILE
from search.config_file import best_text
from search.objectives import Objective, objectives_of, trial_value
from search.pareto import draw_front, front_ids, introduction, values_in_words
from search.ratio_series import draw_ratio_figure
from search.table_text import print_table, table_markdown
from search.tables import fill_table, table_data
from spaces.budget import budget_named
from spaces.config import GenMixConfig
from spaces.generators import SCRATCH
from spaces.parameter import Value
from spaces.space import Space
from spaces.wording import counted
from trainables.files import read_json, write_atomically, write_json
from trainables.ledger import Ledger, SearchRecord
from trainables.metrics.catalogue import SECONDS
from trainables.metrics.interval import Interval
from trainables.pooled_intervals import score_intervals
from trainables.results import FoldResult, Summary, TrialResult

_SHORT_NAMES = {
    "classifier.learning_rate": "lr",
    "mixer.mixup_alpha": "alpha",
    "mixer.genmix_alpha": "alpha",
    "mixer.cutmix_alpha": "alpha",
    "generator.survivors": "mu",
    "generator.discriminator_steps": "D",
    "generator.mixing_alpha": "mix",
    "generator.components": "K",
    "generator.latent_size": "z",
    "generator.centre_range": "c",
    "generator.mixed_input": "mixed",
    "generator.affine_copies": "copies",
    "generator.r1_weight": "r1",
    "generator.sampling_steps": "ddim",
    "generator.guidance": "cfg",
    "generator.tokens_per_class": "tokens",
}
_LEADERBOARD_SCORES = ("balanced_accuracy", "auroc", "accuracy", "macro_f1")
_HEADLINE_SCORES = ("balanced_accuracy", "auroc")
_LEADERBOARD_FIDELITY = ("kid", "copy_rate")


def rank(trials: Sequence[TrialResult], record: SearchRecord) -> list[TrialResult]:
    """The completed trials that can be the best of a search, best first; the earlier of two equals first.

    The search's metric is defined in them, and their copy rate is within its limit.
    """
    main = objectives_of(record)[0]
    scored = [
        (value, trial)
        for trial in trials
        if trial.state == "completed"
        and (value := trial_value(trial, main)) is not None
        and trial.feasible(record.max_copy_rate)
    ]
    return [trial for _, trial in sorted(scored, key=lambda each: each[0], reverse=main.maximize)]


def policy(config: Mapping[str, Value], space: Space | None = None) -> str:
    """A configuration in a few words, such as "genmix egan gamma=0.005 alpha=0.3 ratio=1 affine lr=0.001".

    With ``space`` without the settings that are the same in every configuration of it.
    """
    same = _fixed(space) if space is not None else frozenset()
    words = [str(config.get("mixer.name", "real"))]
    if "generator.name" in config:
        words.append(str(config["generator.name"]))
    for name, value in config.items():
        if name in ("mixer.name", "generator.name") or name in same:
            continue
        short = _SHORT_NAMES.get(name, name.rpartition(".")[2])
        if isinstance(value, bool):
            words += [short] if value else []
        elif isinstance(value, str):
            words += _word(short, value)
        else:
            words.append(f"{short}={_rough(value)}")
    return " ".join(words)


def _fixed(space: Space) -> frozenset[str]:
    """The names of dimensions that always exist and have one value."""
    single = (
        each.name
        for each in space.dimensions
        if each.when is None and len(space.variants(each.name)) == 1 and len(each.parameter.grid(2)) == 1
    )
    return frozenset(single)


def _rough(value: float) -> str:
    """A number in two digits; whole numbers in all of them."""
    return str(value) if isinstance(value, int) else f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


def _word(name: str, value: str) -> list[str]:
    """A named value: itself, the end of a path, or its name where it says that something is not there."""
    if value == SCRATCH or (name, value) == ("partner", GenMixConfig().partner):
        return []
    return [f"{name}=off"] if value == "off" else [value.rstrip("/").rpartition("/")[2]]


def result_data(record: SearchRecord, trials: Sequence[TrialResult]) -> dict[str, Any]:
    """The content of ``result.json``: documented in the README, for machines."""
    ranked = rank(trials, record)
    return {
        "search": record.name,
        "space": record.space.name,
        "budget": record.budget,
        "data": {
            "digest": record.data.digest,
            "source": record.data.source,
            "phantom": record.data.is_phantom,
            "classes": list(record.data.classes),
            "counts": dict(zip(record.data.classes, record.data.counts, strict=True)),
            "patients": record.data.patients if record.data.patients_known else None,
            "bad_images": [list(each) for each in record.data.bad_images],
        },
        "metric": record.metric,
        "further_metrics": list(record.further_metrics),
        "max_copy_rate": record.max_copy_rate,
        "seed": record.seed,
        "best": _best(ranked[0], record) if ranked else None,
        "pareto_front": front_ids(ranked, record),
        "trials": [_trial(trial, record) for trial in trials],
    }


def _best(trial: TrialResult, record: SearchRecord) -> dict[str, Any]:
    return {
        "trial": trial.id,
        "config": dict(trial.config),
        "scores": _summaries(trial.scores),
        "fidelity": _summaries(trial.fidelity),
        "intervals": _intervals(trial, record),
    }


def _intervals(trial: TrialResult, record: SearchRecord) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in score_intervals(trial, record).items()}


def _trial(trial: TrialResult, record: SearchRecord) -> dict[str, Any]:
    return {
        "id": trial.id,
        "state": trial.state,
        "reference": trial.reference,
        "config": dict(trial.config),
        "folds": [_fold(fold) for fold in trial.folds],
        "scores": _summaries(trial.scores),
        "fidelity": _summaries(trial.fidelity),
        "intervals": {name: asdict(interval) for name, interval in trial.intervals.items()},
        "feasible": trial.feasible(record.max_copy_rate),
        "error": trial.error,
    }


def _fold(fold: FoldResult) -> dict[str, Any]:
    stages = [
        {"name": stage.name, "key": stage.key, "seconds": stage.seconds, "reused": stage.reused}
        for stage in fold.stages
    ]
    return {
        "fold": fold.fold,
        "name": fold.name,
        "scores": dict(fold.scores),
        "fidelity": dict(fold.fidelity),
        "counts": dict(fold.counts),
        "stages": stages,
    }


def _summaries(scores: Mapping[str, Summary]) -> dict[str, dict[str, float | None]]:
    return {name: {"mean": summary.mean, "std": summary.std} for name, summary in scores.items()}


def _trials(ledger: Ledger) -> list[TrialResult]:
    """All trials; of those that were completed before intervals were recorded, with what these are computed from."""
    return [
        ledger.trial(trial.id, predictions=True) if trial.state == "completed" and not trial.intervals else trial
        for trial in ledger.trials()
    ]


def write_outcome(ledger: Ledger, *, in_a_hurry: bool = False) -> None:
    """Write ``result.json``, a paper's table and, once a trial is complete, ``best.yaml`` into the search's folder.

    ``in_a_hurry`` leaves the table out, whose intervals take their time.
    """
    record, trials = ledger.search(), _trials(ledger)
    verdict = ledger.folder / CONFIRMATION_FILE
    confirmation = {"confirmation": read_json(verdict) if verdict.exists() else None}
    filled = None if in_a_hurry else fill_table(record, trials)
    table = {"table": table_data(filled) if filled else None}
    write_json(ledger.folder / "result.json", {**result_data(record, trials), **confirmation, **table})
    if filled is not None:
        write_atomically(ledger.folder / TABLE_FILE, table_markdown(filled))
        draw_ratio_figure(record, trials, ledger.folder / RATIO_FILE)
    ranked = rank(trials, record)
    draw_front(ranked, record, ledger.folder / PARETO_FILE)
    if ranked:
        write_atomically(ledger.folder / "best.yaml", best_text(record, ranked[0]))


def print_outcome(console: Console, ledger: Ledger) -> None:
    """Print the leaderboard, what failed, and what the numbers may not be taken for."""
    record, trials = ledger.search(), _trials(ledger)
    console.print(_leaderboard(record, trials))
    filled = fill_table(record, trials)
    if filled is not None:
        print_table(console, filled)
    for sentence in [*_headline(record, trials), *_front(record, trials), *_infeasible(record, trials)]:
        console.print(sentence)
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        table = Table(title="Failed trials", title_justify="left")
        table.add_column("trial")
        table.add_column("error", overflow="fold")
        for trial in failed:
            table.add_row(trial.id, trial.error or "")
        console.print(table)
    for caution in cautions(record):
        console.print(caution, style="yellow")


def _headline(record: SearchRecord, trials: Sequence[TrialResult]) -> list[str]:
    """The best trial and, beside it, no augmentation, each with its intervals."""
    ranked = rank(trials, record)
    shown = {f"Best, {trial.id} {policy(trial.config, record.space)}": trial for trial in ranked[:1]}
    shown |= {f"No augmentation, {trial.id}": trial for trial in ranked[1:] if trial.reference == "none"}
    sentences = []
    for name, trial in shown.items():
        scores = [
            f"{score.replace('_', ' ')} {interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
            for score, interval in score_intervals(trial, record).items()
            if score in _HEADLINE_SCORES
        ]
        if scores:
            sentences.append(f"{name}: {', '.join(scores)}")
    if sentences:
        sentences.append("(all out-of-fold predictions together; 95 % intervals by bootstrap over patients)")
    return sentences


def _front(record: SearchRecord, trials: Sequence[TrialResult]) -> list[str]:
    """The Pareto front, a line for each trial; nothing where there is one objective."""
    ranked = rank(trials, record)
    on_front = front_ids(ranked, record) or ()
    lines = [
        f"  {trial.id} {policy(trial.config, record.space)}: {values_in_words(trial, record)}"
        for trial in ranked
        if trial.id in on_front
    ]
    return [introduction(record), *lines] if lines else []


def _infeasible(record: SearchRecord, trials: Sequence[TrialResult]) -> list[str]:
    """How many trials copy more than the search allows."""
    count = sum(not trial.feasible(record.max_copy_rate) for trial in trials)
    if not count:
        return []
    return [
        f"{count} of {len(trials)} trials are infeasible: their copy rate is above {record.max_copy_rate:g} "
        f"(--max-copy-rate), so that none of them can be the best."
    ]


def cautions(record: SearchRecord, *, confirmed: bool = False) -> list[str]:
    """What every reader of the search's numbers must know, one sentence each; ``confirmed``: of a confirmation's."""
    notes = []
    if record.data.is_phantom:
        notes.append("Synthetic phantom data: these images were computed, they show no patient.")
    if record.budget == "quick":
        notes.append(f"Budget quick is a {budget_named('quick').note}.")
    if not record.data.patients_known:
        notes.append(
            "No 'patient' column: every image was taken for a patient of its own, so images of one patient may stand "
            "on both sides of a split; no claim of leak-free evaluation is made."
        )
    if record.data.bad_images:
        notes.append(f"Left out: {counted(len(record.data.bad_images), 'unreadable image')}; result.json lists them.")
    if not confirmed:
        notes.append(
            "The best of many trials is chosen on the folds that score it: expect less on new patients than is shown "
            "here."
        )
    return notes


def _leaderboard(record: SearchRecord, trials: Sequence[TrialResult]) -> Table:
    scores = (name for name in record.further_metrics if name != SECONDS)
    shown = list(dict.fromkeys((record.metric, *scores, *_LEADERBOARD_SCORES)))
    measured = [name for name in _LEADERBOARD_FIDELITY if any(name in trial.fidelity for trial in trials)]
    table = Table(title=f"{record.name}: mean ± standard deviation over folds", title_justify="left")
    for heading in ("", "trial", "policy", "folds"):
        table.add_column(heading, overflow="fold")
    with_intervals = any(record.metric in trial.intervals for trial in trials)
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right")
        if name == record.metric and with_intervals:
            table.add_column("95 % interval", justify="right")
    for name in measured:
        table.add_column(name.replace("_", " "), justify="right")
    if SECONDS in record.further_metrics:
        table.add_column("seconds a fold", justify="right")
    ranked = rank(trials, record)
    rest = [trial for trial in trials if trial not in ranked]
    for trial in ranked + rest:
        label = policy(trial.config, record.space) + (f" [reference: {trial.reference}]" if trial.reference else "")
        cells = [format_score(trial.scores.get(name)) if trial.folds else "" for name in shown]
        if with_intervals:
            cells.insert(1, format_interval(trial.intervals.get(record.metric)))
        cells += [_fidelity(trial.fidelity.get(name)) for name in measured]
        if SECONDS in record.further_metrics:
            cost = trial_value(trial, Objective(name=SECONDS, maximize=False))
            cells.append("" if cost is None else f"{cost:.1f}")
        place = str(ranked.index(trial) + 1) if trial in ranked else _state(trial, record)
        table.add_row(place, trial.id, label, f"{len(trial.folds)}/{record.folds}", *cells)
    return table


def _state(trial: TrialResult, record: SearchRecord) -> str:
    """What is to be said of a trial that has no place."""
    infeasible = trial.state in ("completed", "pruned") and not trial.feasible(record.max_copy_rate)
    return "infeasible" if infeasible else trial.state


def format_interval(interval: Interval | None) -> str:
    """An interval as "[0.770, 0.832]"; empty where there is none."""
    return "" if interval is None else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _fidelity(summary: Summary | None) -> str:
    """The mean of a measure of synthetic images; empty where a trial has none."""
    if summary is None:
        return ""
    return "undefined" if summary.mean is None else f"{summary.mean:.3f}"


def format_score(summary: Summary | None) -> str:
    """A score as ".812 ± .034"; "undefined" where no fold defines it."""
    if summary is None or summary.mean is None:
        return "undefined"
    return f"{summary.mean:.3f}" + (f" ± {summary.std:.3f}" if summary.std is not None else "")
