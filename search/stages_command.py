"""The subcommand ``stages``: what a storage's searches share, verified and pruned on request."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.console import open_console
from search.settings import SettingsError
from search.sizes import format_bytes
from search.stage_inventory import Inventory, running_searches, take_inventory
from search.storage import check_writable
from trainables.ledger import SHARED
from trainables.stage_files import make_parts, stage_folders, verified
from trainables.stage_space import Evicted, evict, sweep

EXIT_DAMAGED = 1
_REASONS_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesWish:
    """What the user asks of the stages of a storage.

    Args:
        storage: the folder of the searches.
        verify: read every file, and remove what is damaged.
        prune: remove stages by the three that follow.
        limit: bytes that may be left; None: any number.
        older_than: seconds; what was not used for so long goes; None: nothing.
        everything: all goes.
        as_json: print for machines.
    """

    storage: Path
    verify: bool = False
    prune: bool = False
    limit: int | None = None
    older_than: float | None = None
    everything: bool = False
    as_json: bool = False


def stages(wish: StagesWish) -> int:
    """List, verify and prune the stages of a storage. Returns the exit code: 1 if any was damaged.

    Raises: SettingsError if there are none, or if pruning was asked for without saying what, or the other way round.
    """
    _check(wish)
    root = wish.storage.resolve() / SHARED / "stages"
    if not root.is_dir():
        raise SettingsError(f"no stages are in {wish.storage}; start a search, or name its folder with --storage.")
    check_writable(wish.storage)
    make_parts(root)
    damaged = _remove_damaged(root) if wish.verify else None
    pruned = _prune(root, wish) if wish.prune else None
    found = take_inventory(root)
    if wish.as_json:
        print(json.dumps(_as_data(wish, found, damaged, pruned), indent=1, ensure_ascii=False))
    else:
        _print(open_console(), wish, found, damaged, pruned)
    return EXIT_DAMAGED if damaged else 0


def _check(wish: StagesWish) -> None:
    chosen = {"--stage-limit": wish.limit, "--older-than": wish.older_than, "--all": wish.everything or None}
    given = [flag for flag, value in chosen.items() if value is not None]
    if wish.prune and not given:
        raise SettingsError(
            "--prune was given without what to remove; add --stage-limit 20GB, --older-than 30d or --all."
        )
    if wish.everything and len(given) > 1:
        raise SettingsError(f"--all removes everything, and {given[0]} would keep some; leave one of them out.")
    if given and not wish.prune:
        raise SettingsError(f"{given[0]} was given without --prune, which removes stages; add it.")


def _remove_damaged(root: Path) -> list[str]:
    """Read every file; returns the names of the stages that were damaged, and are gone now."""
    damaged: list[str] = []
    for folder in stage_folders(root):
        name = f"{folder.parent.name}/{folder.name}"
        verified(root, folder, fresh=True, on_damage=partial(damaged.append, name))
    return damaged


def _prune(root: Path, wish: StagesWish) -> Evicted:
    sweep(root)
    older_than = math.inf if wish.older_than is None else wish.older_than
    return evict(
        root,
        math.inf if wish.limit is None else wish.limit,
        unused_for=-math.inf if wish.everything else older_than,
        keep_since=min((begun for _, begun in running_searches(wish.storage, root)), default=math.inf),
    )


def _as_data(wish: StagesWish, found: Inventory, damaged: list[str] | None, pruned: Evicted | None) -> dict[str, Any]:
    return {
        "storage": str(wish.storage.resolve()),
        "stages": [asdict(kind) for kind in found.kinds],
        "total": {name: value for name, value in asdict(found.total).items() if name != "stage"},
        "computing": found.computing,
        "stopped_trainings": {"count": found.stopped, "bytes": found.stopped_bytes},
        "running_folds": found.folds,
        "failures": [{"stage": stage, "reason": reason, "count": count} for stage, reason, count in found.failures],
        "damaged": damaged,
        "pruned": None if pruned is None else asdict(pruned),
    }


def _print(
    console: Console, wish: StagesWish, found: Inventory, damaged: list[str] | None, pruned: Evicted | None
) -> None:
    console.print(_table(found, f"Stages shared by the searches in {wish.storage}"))
    for sentence in _sentences(found):
        console.print(sentence)
    if found.failures:
        console.print(_failure_table(found))
    if damaged is not None:
        console.print("Every file was read, and none is damaged." if not damaged else _damage(damaged))
    if pruned is not None:
        for sentence in _pruning(pruned):
            console.print(sentence)


def _table(found: Inventory, title: str) -> Table:
    table = Table(title=title, title_justify="left", show_footer=True)
    total = found.total
    columns = {
        "stage": "total",
        "finished": str(total.finished),
        "failed": str(total.failed),
        "size": format_bytes(total.bytes),
        "computing took": _duration(total.seconds),
        "last used": _ago(total.last_used, found.now),
        "longest unused": _ago(total.least_recently_used, found.now),
    }
    for heading, footer in columns.items():
        table.add_column(heading, footer=footer, justify="left" if heading == "stage" else "right")
    for kind in found.kinds:
        table.add_row(
            kind.stage,
            str(kind.finished),
            str(kind.failed),
            format_bytes(kind.bytes),
            _duration(kind.seconds),
            _ago(kind.last_used, found.now),
            _ago(kind.least_recently_used, found.now),
        )
    return table


def _sentences(found: Inventory) -> list[str]:
    sentences = []
    if found.computing:
        sentences.append(f"{_counted(found.computing, 'stage')} being computed at this moment.")
    if found.stopped:
        sentences.append(
            f"{_counted(found.stopped, 'training')} not finished; their states take "
            f"{format_bytes(found.stopped_bytes)}, and a search that needs them goes on there."
        )
    if found.folds:
        sentences.append(f"{_counted(found.folds, 'fold')} running; nothing used since they began is removed.")
    return sentences


def _failure_table(found: Inventory) -> Table:
    table = Table(title="Trainings that diverged, and are not tried again", title_justify="left")
    table.add_column("stage")
    table.add_column("how many", justify="right")
    table.add_column("reason", overflow="fold")
    for stage, reason, count in found.failures[:_REASONS_SHOWN]:
        table.add_row(stage, str(count), reason)
    if len(found.failures) > _REASONS_SHOWN:
        table.add_row("", "", f"and {len(found.failures) - _REASONS_SHOWN} more; --json lists them")
    return table


def _damage(damaged: Sequence[str]) -> str:
    lines = [f"{_counted(len(damaged), 'stage')} damaged, removed, and computed again where needed:", *damaged]
    return "\n  ".join(lines)


def _pruning(pruned: Evicted) -> list[str]:
    stages = "1 stage" if pruned.count == 1 else f"{pruned.count} stages"
    sentences = [f"Removed {stages} ({format_bytes(pruned.bytes)}); {format_bytes(pruned.left_bytes)} are left."]
    if pruned.kept:
        sentences.append(
            f"Kept {pruned.kept} more ({format_bytes(pruned.kept_bytes)}), used since a search began that is running."
        )
    return sentences


def _counted(count: int, noun: str) -> str:
    """ "1 stage is", "3 stages are"."""
    return f"1 {noun} is" if count == 1 else f"{count} {noun}s are"


def _duration(seconds: float) -> str:
    """A duration in its largest unit: "42 s", "3.5 min", "2.1 h", "12 d"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} d"


def _ago(moment: float | None, now: float) -> str:
    return "" if moment is None else f"{_duration(max(0.0, now - moment))} ago"
