"""Writing a search's report and its figures into the search's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mlflow_tracking.names import COMMANDS_FILE, FIGURES_FOLDER, REPORT_FILE
from search.out_file import write_out
from search.report import course, importance, maps, parallel, predicted, shown, timeline
from search.report.charts import Figure
from search.report.facts import Facts, read_facts
from search.report.page import report_html
from search.report.still import png
from search.started_with import SPACE_FILE
from trainables.errors import lacks_room
from trainables.files import write_atomically
from trainables.ledger import Ledger

_MAKERS: tuple[Callable[[Facts], Figure], ...] = (
    predicted.confirmed,
    course.score_by_trial,
    course.score_by_compute,
    course.scores_by_generator,
    course.pareto,
    importance.importance,
    parallel.parallel,
    maps.alpha_by_ratio,
    predicted.roc_curves,
    predicted.calibration,
    predicted.confusion,
    timeline.timeline,
)


def write_report(ledger: Ledger, *, path: Path | None = None) -> Path:
    """Write the report and, beside it, ``figures/`` with a PNG file for each figure.

    Args:
        ledger: of a search, finished or not.
        path: of the HTML file, or a device or a pipe; None: ``report.html`` in the search's folder.

    Returns:
        The HTML file.
    """
    facts = read_facts(ledger)
    if facts.recipe.space_yaml is not None:
        write_atomically(ledger.folder / SPACE_FILE, facts.recipe.space_yaml)
    commands = [facts.recipe.command, *([facts.recipe.single] if facts.best_yaml else [])]
    write_atomically(ledger.folder / COMMANDS_FILE, "\n\n".join(commands) + "\n")
    figures = [*charts_of(facts), *_pictures(facts, ledger)]
    stills = {figure.name: png(figure.charts) for figure in figures if figure.charts}
    _write_figures(ledger.folder / FIGURES_FOLDER, figures, stills)
    target = path or ledger.folder / REPORT_FILE
    write_out(target, report_html(facts, figures, stills))
    return target


def try_report(ledger: Ledger) -> str | None:
    """Write the report of a search that must not fail by it.

    Returns:
        None; or, where the report could not be written, why.

    Raises:
        OSError: the storage is full.
    """
    try:
        write_report(ledger)
    except Exception as error:
        if lacks_room(error):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def charts_of(facts: Facts) -> list[Figure]:
    """Every figure that is computed from the record; one that cannot be says why, and the others stay."""
    return [_made(maker, facts) for maker in _MAKERS]


def _made(maker: Callable[[Facts], Figure], facts: Facts) -> Figure:
    try:
        return maker(facts)
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
        name = maker.__name__
        reason = f"It could not be drawn ({type(error).__name__}: {error})."
        return Figure(name=name, heading=name.replace("_", " ").capitalize(), caption=reason)


def _pictures(facts: Facts, ledger: Ledger) -> list[Figure]:
    try:
        return shown.pictures(facts, ledger)
    except (ValueError, ArithmeticError, LookupError, TypeError, OSError) as error:
        if lacks_room(error):
            raise
        reason = f"They could not be drawn ({type(error).__name__}: {error})."
        return [Figure(name="images", heading="Images", caption=reason)]


def _write_figures(folder: Path, figures: Sequence[Figure], stills: Mapping[str, bytes]) -> None:
    """Write the PNG files in the place of those of an earlier report."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name, content in stills.items():
        (fresh / f"{name}.png").write_bytes(content)
    for picture in (picture for figure in figures for picture in figure.pictures):
        (fresh / f"{picture.name}.png").write_bytes(picture.png)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
