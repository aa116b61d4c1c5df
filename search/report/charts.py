"""What a chart shows, as plain data: drawn for a browser by ``interactive`` and for paper by ``still``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY = (
    "#2a86c7",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#b58900",
    "#56b4e9",
    "#8a8a8a",
)
"""After Okabe and Ito, told apart by readers of every colour vision, on white and on black."""
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY)
MOST_LETTERS = 22
"""Of a name beside an axis; a phone has room for no more."""

Symbol: TypeAlias = Literal["circle", "square", "diamond", "triangle-up", "circle-open", "diamond-open", "x"]
Style: TypeAlias = Literal["none", "straight", "steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis.

    Args:
        label: what it measures, and in which unit; empty where names stand beside it.
        ticks: places and what is written there; None: numbers as they come.
        low: where it begins; None: where the data do.
        high: where it ends.
        reversed: whether it runs down, or to the left.
        grid: whether lines go across the chart from it.
    """

    label: str
    ticks: tuple[tuple[float, str], ...] | None = None
    low: float | None = None
    high: float | None = None
    reversed: bool = False
    grid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Points, or a line through them, or both.

    Args:
        label: in the legend; empty: not there.
        x: places across.
        y: places up; None interrupts a line.
        ends: an interval of each point along ``along``; None: it has none.
        along: the axis that intervals lie along.
        hover: what is said of each point.
        colour: of all points.
        symbol: of points; None: a line alone.
        style: of the line.
        dashed: whether the line is broken.
        size: of points, in pixels.
        width: of the line, in pixels.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    ends: tuple[tuple[float, float] | None, ...] = ()
    along: Literal["x", "y"] = "y"
    hover: tuple[str, ...] = ()
    colour: str = BLUE
    symbol: Symbol | None = "circle"
    style: Style = "none"
    dashed: bool = False
    size: float = 8
    width: float = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ribbon:
    """The band between two lines.

    Args:
        label: in the legend.
        x: places across.
        low: the lower line.
        high: the upper line.
        colour: of the band, which is drawn faintly.
    """

    label: str
    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    colour: str = BLUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Bars that lie along the x axis.

    Args:
        label: in the legend.
        y: the row of each.
        start: where each begins.
        end: where each ends.
        hover: what is said of each.
        colour: of all of them.
        height: in rows.
    """

    label: str
    y: tuple[float, ...]
    start: tuple[float, ...]
    end: tuple[float, ...]
    hover: tuple[str, ...] = ()
    colour: str = BLUE
    height: float = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """A grid of coloured cells; column and row numbers are places on the axes.

    Args:
        values: a row of values for each place up; None: an empty cell.
        texts: what is written in each cell.
        hover: what is said of each.
        meaning: what the colours measure.
        low: the darkest colour's value.
        high: the lightest colour's value.
    """

    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    hover: tuple[tuple[str, ...], ...]
    meaning: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Short texts, each around its place."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    texts: tuple[str, ...]


Item: TypeAlias = Marks | Ribbon | Bars | Cells | Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Axes and what is drawn between them, in the order in which it is drawn.

    Args:
        x: the axis across.
        y: the axis up.
        items: what is drawn.
        heading: tells the charts of a figure apart; empty where it has one.
        height: in pixels, at the width of a phone.
    """

    x: Axis
    y: Axis
    items: tuple[Item, ...]
    heading: str = ""
    height: int = 370


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that exists already: PNG bytes, and what it shows, for readers who do not see it."""

    name: str
    png: bytes = field(repr=False)
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure of the report: charts, or pictures, or the sentence that says why there is nothing to draw.

    Args:
        name: of its file, and of its place in the report.
        heading: above it.
        caption: one sentence or two that say what to read from it; without charts and pictures: why there are none.
        charts: below each other on a phone, side by side where there is room.
        pictures: below each other.
        rows: a table below, its headings first.
    """

    name: str
    heading: str
    caption: str
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return not (self.charts or self.pictures or self.rows)


def short(name: str, most: int = MOST_LETTERS) -> str:
    """A name that fits beside an axis."""
    return name if len(name) <= most else name[: most - 1] + "…"
