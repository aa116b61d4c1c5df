"""The subcommand ``report``: a search's report, rebuilt from its record, or several searches side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_tracking.names import FIGURES_FOLDER, REPORT_FILE
from search.console import open_console
from search.out_file import unwritable, writable
from search.report.compare import write_comparison
from search.report.write import write_report
from search.settings import SettingsError
from search.storage import find_search
from trainables.errors import lacks_room

_INSTEAD = "name an .html file in a folder that exists"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportWish:
    """What the user asks for.

    Args:
        storage: the folder of the searches.
        name: of the search; None: the latest, or none beside those of ``compare``.
        compare: searches to put side by side; empty: the report of one.
        out: the HTML file; None: within the storage.
    """

    storage: Path
    name: str | None = None
    compare: Sequence[str] = ()
    out: Path | None = None


def report(wish: ReportWish) -> int:
    """Write a report, or a comparison. Returns the exit code, 0.

    Raises:
        SettingsError: a search is not there, or the file cannot be written.
    """
    console = open_console()
    names = list(dict.fromkeys([*([wish.name] if wish.name else []), *wish.compare]))
    if wish.compare and len(names) < 2:
        raise SettingsError(f"--compare was given '{names[0]}' alone; name two searches or more.")
    ledgers = [find_search(wish.storage, name) for name in names] or [find_search(wish.storage, None)]
    target = _outside(wish.out, wish.storage) if wish.out else _within(wish, ledgers[0].folder, names)
    try:
        with console.status("drawing"):
            if wish.compare:
                write_comparison(ledgers, target)
            else:
                write_report(ledgers[0], path=target)
    except OSError as error:
        if lacks_room(error):
            raise
        raise SettingsError(f"{target} cannot be written ({error.strerror}); name another file with --out.") from None
    console.print(f"{'Comparison' if wish.compare else 'Report'}: {target}")
    if not wish.compare:
        console.print(f"Figures: {ledgers[0].folder / FIGURES_FOLDER}")
    return 0


def _outside(out: Path, storage: Path) -> Path:
    """The file that the user named. Raises: SettingsError if it cannot be written, or is of a search's record."""
    target = writable(out, instead=_INSTEAD)
    is_page = target.suffix.lower() in (".html", ".htm")
    if target.is_file() and not is_page and target.is_relative_to(storage.resolve()):
        raise unwritable(out, f"would take the place of '{target}', which belongs to a search", instead=_INSTEAD)
    return target


def _within(wish: ReportWish, folder: Path, names: Sequence[str]) -> Path:
    """The file within the storage."""
    if not wish.compare:
        return folder / REPORT_FILE
    return wish.storage.resolve() / (f"comparison-{'-'.join(names)}"[:200] + ".html")
