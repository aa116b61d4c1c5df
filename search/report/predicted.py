"""How the best trial predicts, beside no augmentation: ROC, reliability and confusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from search.report.charts import BLUE, GREY, ORANGE, Axis, Cells, Chart, Figure, Marks, Ribbon, short
from search.report.curves import Pooled, names, pooled, reliability, roc
from search.report.facts import Facts
from trainables.metrics.classification import confusion_matrix
from trainables.results import TrialResult

MOST_CLASSES = 12
"""Classes beyond which a matrix cannot be read on a phone."""
_NOTHING = "No complete trial has predictions on record, so there is nothing to draw."
_POOLED = "All out-of-fold predictions together; bands and bars: 95 % intervals by bootstrap over patients."


def _shown(facts: Facts) -> Iterator[tuple[str, str, TrialResult, Pooled]]:
    """Label, colour, trial and predictions: the best, and no augmentation where that is another trial."""
    best, baseline = facts.best, facts.baseline
    for label, colour, trial in (("no augmentation", GREY, baseline), ("best", ORANGE, best)):
        if trial is None or (label != "best" and best is not None and trial.id == best.id):
            continue
        found = pooled(trial)
        if found is not None:
            yield f"{label} ({trial.id})", colour, trial, found


def roc_curves(facts: Facts) -> Figure:
    """ROC curves with bands."""
    figure = Figure(name="roc", heading="ROC curve", caption="")
    data = facts.record.data
    items: list[Marks | Ribbon] = [_diagonal("chance")]
    drawn = False
    for label, colour, _, found in _shown(facts):
        curve = roc(found, positive=data.positive, seed=facts.record.seed)
        if curve is None:
            return replace(figure, caption="A class has no predicted image, so that its ROC curve is undefined.")
        drawn = True
        x, y = tuple(curve.x.tolist()), tuple(curve.y.tolist())
        items += [
            Ribbon(label="", x=x, low=tuple(curve.low.tolist()), high=tuple(curve.high.tolist()), colour=colour),
            Marks(
                label=label,
                x=x,
                y=y,
                hover=tuple(f"{label}\nsensitivity {up:.2f} at {across:.2f}" for across, up in zip(x, y, strict=True)),
                colour=colour,
                symbol=None,
                style="straight",
            ),
        ]
    if not drawn:
        return replace(figure, caption=_NOTHING)
    chart = Chart(
        x=Axis(label="false-positive rate (1 - specificity)", low=0.0, high=1.0),
        y=Axis(label="sensitivity", low=0.0, high=1.02),
        items=tuple(items),
        height=370,
    )
    caption = (
        f"ROC of {names(data.classes, data.positive)}: the higher the better; where the bands overlap, the best trial "
        f"is not shown to rank images better than training without augmentation. {_POOLED}"
    )
    return replace(figure, caption=caption, charts=(chart,))


def _diagonal(label: str) -> Marks:
    return Marks(
        label=label,
        x=(0.0, 1.0),
        y=(0.0, 1.0),
        symbol=None,
        style="straight",
        dashed=True,
        colour=GREY,
        width=1,
    )


def calibration(facts: Facts) -> Figure:
    """Reliability diagrams with intervals."""
    figure = Figure(name="calibration", heading="Calibration", caption="")
    items = [_diagonal("perfect")]
    for label, colour, _, found in _shown(facts):
        curve, counts = reliability(found, seed=facts.record.seed)
        shift = -0.004 if colour == GREY else 0.004
        items.append(
            Marks(
                label=label,
                x=tuple((curve.x + shift).tolist()),
                y=tuple(curve.y.tolist()),
                ends=tuple(zip(curve.low.tolist(), curve.high.tolist(), strict=True)),
                hover=tuple(
                    f"{label}\nsaid {said:.2f}, right {right:.2f}, {count} images"
                    for said, right, count in zip(curve.x, curve.y, counts, strict=True)
                ),
                colour=colour,
                style="straight",
                width=1.2,
            )
        )
    if len(items) == 1:
        return replace(figure, caption=_NOTHING)
    least = 1 / len(facts.record.data.classes)
    chart = Chart(
        x=Axis(label="probability given to the predicted class", low=max(0.0, least - 0.05), high=1.02),
        y=Axis(label="share of these that is right", low=0.0, high=1.05),
        items=tuple(items),
        height=370,
    )
    caption = (
        f"Points below the dashed line are overconfident: the classifier is right less often than it says. Short bars "
        f"stand on many images. {_POOLED}"
    )
    return replace(figure, caption=caption, charts=(chart,))


def confusion(facts: Facts) -> Figure:
    """Which class is taken for which."""
    figure = Figure(name="confusion", heading="Confusion matrix", caption="")
    classes = facts.record.data.classes
    if len(classes) > MOST_CLASSES:
        return replace(figure, caption=f"{len(classes)} classes are too many for a matrix that can be read.")
    charts = tuple(
        _matrix(
            label, classes, confusion_matrix(found.labels_N, found.probabilities_NK.argmax(1), len(classes)).tolist()
        )
        for label, _, _, found in reversed(list(_shown(facts)))
    )
    if not charts:
        return replace(figure, caption=_NOTHING)
    caption = (
        "Each row is a true class and adds up to 1: the diagonal is the share that was recognised, the rest says what "
        "it was taken for (number of out-of-fold predictions below)."
    )
    return replace(figure, caption=caption, charts=charts)


def _matrix(label: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Chart:
    letters = 14 if len(classes) <= 4 else 8
    shares = [[count / sum(row) if sum(row) else None for count in row] for row in counts]
    few = len(classes) <= 6
    cells = Cells(
        values=tuple(map(tuple, shares)),
        texts=tuple(
            tuple(
                ("-" if share is None else f"{share:.2f}") + (f"\n{count}" if few else "")
                for share, count in zip(share_row, row, strict=True)
            )
            for share_row, row in zip(shares, counts, strict=True)
        ),
        hover=tuple(
            tuple(f"true {true}, predicted {said}: {count}" for said, count in zip(classes, row, strict=True))
            for true, row in zip(classes, counts, strict=True)
        ),
        meaning="share of the true class",
        low=0.0,
        high=1.0,
    )
    ticks = tuple((float(index), short(name, letters)) for index, name in enumerate(classes))
    return Chart(
        x=Axis(label="predicted", ticks=ticks, low=-0.5, high=len(classes) - 0.5, grid=False),
        y=Axis(label="true", ticks=ticks, low=-0.5, high=len(classes) - 0.5, grid=False, reversed=True),
        items=(cells,),
        heading=label,
        height=max(280, 130 + 44 * len(classes)),
    )


def _role(reference: str | None) -> str:
    return "runner-up" if reference is None else "no augmentation" if reference == "none" else reference


def confirmed(facts: Facts) -> Figure:
    """The confirmed policies with their intervals."""
    figure = Figure(name="confirmed", heading="Confirmed scores", caption="")
    rows = [] if facts.verdict is None else [each for each in facts.verdict["rows"] if each.get("interval")]
    if not rows:
        return replace(figure, caption="The search is not confirmed, so there are no fresh scores to draw.")
    said = ("best policy", *(_role(each["role"]) for each in rows[1:]))
    items = []
    for label, key, colour, shift in (
        ("fresh splits", "interval", BLUE, -0.12),
        ("locked test set", "locked_interval", ORANGE, 0.16),
    ):
        known = [(place, each) for place, each in enumerate(rows) if each.get(key)]
        if known:
            items.append(
                Marks(
                    label=label,
                    x=tuple(each[key]["estimate"] for _, each in known),
                    y=tuple(place + shift for place, _ in known),
                    ends=tuple((each[key]["low"], each[key]["high"]) for _, each in known),
                    along="x",
                    hover=tuple(
                        f"{said[place]}: {each['policy']}\n{label} {each[key]['estimate']:.3f} "
                        f"[{each[key]['low']:.3f}, {each[key]['high']:.3f}]"
                        for place, each in known
                    ),
                    colour=colour,
                    symbol="circle" if key == "interval" else "square",
                )
            )
    chart = Chart(
        x=Axis(label=facts.metric),
        y=Axis(
            label="",
            ticks=tuple((float(place), short(name)) for place, name in enumerate(said)),
            low=-0.6,
            high=len(rows) - 0.4,
            reversed=True,
        ),
        items=tuple(items),
        height=120 + 44 * len(rows),
    )
    caption = (
        "What each policy scores on fresh splits and seeds, with 95 % intervals over patients; the verdict tests "
        "differences on the same splits, which overlapping intervals do not contradict."
    )
    return replace(figure, caption=caption, charts=(chart,))
