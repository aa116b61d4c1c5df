"""Who trained what, when, and what was found ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from search.report.charts import AMBER, BLUE, GREEN, GREY, PURPLE, Axis, Bars, Chart, Figure, Marks
from search.report.course import unit_of
from search.report.facts import MOST_TIMED, Facts, generator
from trainables.results import FoldResult, StageRecord, TrialResult

_COLOURS = {"generator": BLUE, "pool": GREEN, "classifier": AMBER}
"""What takes long; all other stages share a colour."""
_MOST_ROWS = 12
_HEADINGS = ("generator stage", "trained by", "cost", "found ready by", "saved")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    trial: TrialResult
    stage: StageRecord
    start: float
    end: float
    host: str


def timeline(facts: Facts) -> Figure:
    """A row for each trial with the stages that it computed, and a table of what was shared."""
    figure = Figure(name="timeline", heading="Who trained what, and what was reused", caption="")
    shown = [trial for trial in facts.trials if trial.folds][-MOST_TIMED:]
    spans = [span for trial in shown for fold in trial.folds for span in _of_fold(facts, trial, fold)]
    rows = shared_rows(facts)
    if not shown:
        return replace(figure, caption="No trial has finished a fold yet, so nothing was trained or reused.")
    if not spans:
        return replace(
            figure,
            caption="When stages were computed is not on record any more, as they were removed from the storage."
            + (" The table says what each generator cost and who reused it." if rows else ""),
            rows=rows,
        )
    caption = (
        "Each row is a trial, coloured where it computed something itself; a diamond is a generator that it found "
        "ready, before what it computed with it. Times are by the clocks of the computers that worked."
    )
    if len(shown) < len(facts.trials):
        caption += f" The last {len(shown)} of {len(facts.trials)} trials."
    if rows:
        caption += " The table: each generator training, its cost, and what others saved by it."
    return replace(figure, caption=caption, charts=(_chart(facts, shown, spans),), rows=rows)


def _of_fold(facts: Facts, trial: TrialResult, fold: FoldResult) -> Iterator[_Span]:
    """The stages that a trial computed itself for a fold, and that are still there."""
    for stage in fold.stages:
        computed = facts.computed.get(stage.key)
        if stage.reused or computed is None:
            continue
        start = max(computed.ended - stage.seconds, min(trial.created, computed.ended))
        yield _Span(trial=trial, stage=stage, start=start, end=computed.ended, host=computed.host)


def _chart(facts: Facts, shown: Sequence[TrialResult], spans: Sequence[_Span]) -> Chart:
    begin, last = min(span.start for span in spans), max(span.end for span in spans)
    unit, seconds = unit_of(last - begin)
    rows = {trial.id: float(row) for row, trial in enumerate(shown)}
    items: list[Bars | Marks] = []
    for name in (*_COLOURS, "other stages"):
        mine = [span for span in spans if (span.stage.name if span.stage.name in _COLOURS else "other stages") == name]
        if mine:
            items.append(
                Bars(
                    label=name,
                    y=tuple(rows[span.trial.id] for span in mine),
                    start=tuple((span.start - begin) / seconds for span in mine),
                    end=tuple((span.end - begin) / seconds for span in mine),
                    hover=tuple(
                        f"{span.trial.id} computed {_what(span.trial, span.stage)} in {span.stage.seconds:.1f} s on "
                        f"{span.host or 'an unnamed computer'}"
                        for span in mine
                    ),
                    colour=_COLOURS.get(name, GREY),
                )
            )
    found = _found_ready(facts, shown)
    if found:
        items.append(
            Marks(
                label="generator found ready",
                x=tuple((moment - begin) / seconds for _, moment, _, _ in found),
                y=tuple(float(row) for row, _, _, _ in found),
                hover=tuple(
                    f"{trial.id} reused {_what(trial, stage)}, {stage.seconds:.1f} s saved"
                    for _, _, trial, stage in found
                ),
                colour=PURPLE,
                symbol="diamond",
                size=5,
            )
        )
    every = max(1, -(-len(shown) // 30))
    return Chart(
        x=Axis(label=f"{unit} since the first stage began"),
        y=Axis(
            label="",
            ticks=tuple((float(row), trial.id) for row, trial in enumerate(shown) if row % every == 0),
            low=-0.7,
            high=len(shown) - 0.3,
            reversed=True,
        ),
        items=tuple(items),
        height=140 + max(12, 26 - len(shown) // 3) * len(shown),
    )


def _what(trial: TrialResult, stage: StageRecord) -> str:
    return f"{stage.name} {generator(trial)}" if stage.name in ("generator", "pool") else stage.name


def _found_ready(facts: Facts, shown: Sequence[TrialResult]) -> list[tuple[int, float, TrialResult, StageRecord]]:
    found = []
    for row, trial in enumerate(shown):
        for fold in trial.folds:
            own = [span.start for span in _of_fold(facts, trial, fold)]
            for stage in fold.stages:
                computed = facts.computed.get(stage.key)
                if stage.name == "generator" and stage.reused and (own or computed):
                    moment = min(own, default=trial.created)
                    found.append((row, max(moment, computed.ended) if computed else moment, trial, stage))
    return found


def shared_rows(facts: Facts) -> tuple[tuple[str, ...], ...]:
    """What each generator cost and who found it ready, the dearest savings first; headings come first."""
    trained: dict[str, tuple[TrialResult | None, StageRecord, str, int]] = {}
    users: dict[str, list[str]] = {}
    for trial in facts.trials:
        for fold in trial.folds:
            for stage in fold.stages:
                if stage.name != "generator":
                    continue
                known = trained.get(stage.key)
                if known is None or not stage.reused:
                    trained[stage.key] = (None if stage.reused else trial, stage, generator(trial), fold.fold)
                if stage.reused:
                    users.setdefault(stage.key, []).append(trial.id)
    ordered = sorted(trained.items(), key=lambda each: -each[1][1].seconds * len(users.get(each[0], ())))
    rows = [
        (
            f"{name}, fold {fold}",
            "an earlier search or attempt" if trainer is None else trainer.id,
            f"{stage.seconds:.1f} s",
            _listed(users.get(key, [])),
            f"{stage.seconds * len(users.get(key, ())):.1f} s",
        )
        for key, (trainer, stage, name, fold) in ordered[:_MOST_ROWS]
    ]
    return (_HEADINGS, *rows) if rows else ()


def _listed(trials: Sequence[str]) -> str:
    if not trials:
        return "nobody"
    names = list(dict.fromkeys(trials))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
