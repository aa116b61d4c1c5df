"""Charts for a browser: what plotly.js is told of them, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from search.report.charts import Axis, Bars, Cells, Chart, Item, Marks, Ribbon, Words

_STYLES = {"none": None, "straight": "linear", "steps": "hv"}


def specification(chart: Chart) -> dict[str, Any]:
    """Traces and layout of a chart. Texts are escaped, as plotly.js reads some HTML in them.

    Colours of axes and text are left to the page, which has a light and a dark look.
    """
    data = [trace for item in chart.items for trace in _traces(item)]
    named = [trace for trace in data if trace.get("showlegend")]
    layout: dict[str, Any] = {
        "height": chart.height,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "xaxis": _axis(chart.x, data),
        "yaxis": _axis(chart.y, data),
        "showlegend": bool(named),
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "barmode": "overlay",
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    return {"data": data, "layout": layout}


def _axis(axis: Axis, data: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "title": {"text": escape(axis.label), "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "showgrid": axis.grid,
    }
    if axis.ticks is not None:
        found |= {
            "tickmode": "array",
            "tickvals": [place for place, _ in axis.ticks],
            "ticktext": [_lines(text) for _, text in axis.ticks],
        }
    ends = [axis.low, axis.high]
    if any(each is not None for each in ends):
        found["range"] = ends[::-1] if axis.reversed else ends
    elif axis.reversed:
        found["autorange"] = "reversed"
    return found


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _traces(item: Item) -> Iterator[dict[str, Any]]:
    if isinstance(item, Marks):
        yield _marks(item)
    elif isinstance(item, Ribbon):
        yield _ribbon(item)
    elif isinstance(item, Bars):
        yield _bars(item)
    elif isinstance(item, Words):
        yield {
            "type": "scatter",
            "mode": "text",
            "x": list(item.x),
            "y": list(item.y),
            "text": [_lines(text) for text in item.texts],
            "textfont": {"size": 11},
            "cliponaxis": False,
            "hoverinfo": "skip",
            "showlegend": False,
        }
    else:
        yield _cells(item)


def _common(item: Marks | Ribbon | Bars, hover: tuple[str, ...]) -> dict[str, Any]:
    said: dict[str, Any] = {"hoverinfo": "skip"}
    if hover:
        said = {"hovertext": [_lines(each) for each in hover], "hovertemplate": "%{hovertext}<extra></extra>"}
    return {"name": escape(item.label), "showlegend": bool(item.label), **said}


def _marks(item: Marks) -> dict[str, Any]:
    shape = _STYLES[item.style]
    mode = "+".join((["lines"] if shape else []) + (["markers"] if item.symbol else []))
    found: dict[str, Any] = {"type": "scatter", "mode": mode, "x": list(item.x), "y": list(item.y)}
    found |= _common(item, item.hover)
    if shape:
        dash = "dash" if item.dashed else "solid"
        found["line"] = {"shape": shape, "color": item.colour, "width": item.width, "dash": dash}
    if item.symbol:
        found["marker"] = {"symbol": item.symbol, "color": item.colour, "size": item.size}
    if any(item.ends):
        at = item.x if item.along == "x" else item.y
        pairs = list(zip(item.ends, at, strict=True))
        found[f"error_{item.along}"] = {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, ends[1] - place) if ends and place is not None else 0 for ends, place in pairs],
            "arrayminus": [max(0.0, place - ends[0]) if ends and place is not None else 0 for ends, place in pairs],
            "color": item.colour,
            "thickness": 1.3,
            "width": 0,
        }
    return found


def _ribbon(item: Ribbon) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*item.x, *reversed(item.x)],
        "y": [*item.high, *reversed(item.low)],
        "fill": "toself",
        "fillcolor": _faint(item.colour),
        "line": {"width": 0},
        **_common(item, ()),
    }


def _bars(item: Bars) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(item.y),
        "base": list(item.start),
        "x": [end - start for start, end in zip(item.start, item.end, strict=True)],
        "width": item.height,
        "marker": {"color": item.colour, "line": {"width": 0}},
        **_common(item, item.hover),
    }


def _cells(item: Cells) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "z": [list(row) for row in item.values],
        "text": [[_lines(text) for text in row] for row in item.texts],
        "texttemplate": "%{text}",
        "customdata": [[_lines(text) for text in row] for row in item.hover],
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "colorscale": "Cividis",
        "zmin": item.low,
        "zmax": item.high,
        "xgap": 2,
        "ygap": 2,
        "showlegend": False,
        "colorbar": {"title": {"text": escape(item.meaning), "side": "right"}, "thickness": 12, "len": 1},
    }


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
