"""What the stages of a storage are: how many, how large, what they cost, what is in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.files import read_json
from trainables.stage_files import CHECKPOINTS, LEASES, Manifest
from trainables.stage_space import Entry, entries, is_live, store_clock, uses


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All stages of one name; times are seconds since the epoch, None where there are none."""

    stage: str
    finished: int
    failed: int
    bytes: int
    seconds: float
    last_used: float | None
    least_recently_used: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a store holds: per kind and in all, what is being computed, stopped trainings, running folds, failures."""

    kinds: tuple[Kind, ...]
    total: Kind
    computing: int
    stopped: int
    stopped_bytes: int
    folds: int
    failures: tuple[tuple[str, str, int], ...]
    now: float


def running_searches(storage: Path, root: Path) -> list[tuple[str, float]]:
    """The searches that are being run at this moment, with when each began, in seconds since the epoch."""
    now = store_clock(root)
    found = []
    for record in sorted(storage.resolve().glob("*/search.json")):
        drivers = [record.with_name("driver.lease"), *record.parent.glob("*/driver.lease")]
        if any(is_live(driver, now) for driver in drivers):
            found.append((record.parent.name, _created(record)))
    return found


def _created(record: Path) -> float:
    """When a search began; at the beginning of time if its record cannot be read, so that its stages are kept."""
    try:
        return float(read_json(record)["created"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def take_inventory(root: Path) -> Inventory:
    """Look at every stage's manifest; no file is verified."""
    now = store_clock(root)
    finished, stopped = _apart(entries(root))
    manifests = {entry.path: manifest for entry in finished if (manifest := _manifest(entry.path)) is not None}
    names = sorted({entry.path.parent.name for entry in finished})
    reasons = Counter(
        (path.parent.name, manifest.failed) for path, manifest in manifests.items() if manifest.failed is not None
    )
    leases = [path for path in (root / LEASES).iterdir() if not path.suffix]
    return Inventory(
        kinds=tuple(
            _kind(name, [entry for entry in finished if entry.path.parent.name == name], manifests) for name in names
        ),
        total=_kind("total", finished, manifests),
        computing=sum(is_live(lease, now) for lease in leases),
        stopped=len(stopped),
        stopped_bytes=sum(entry.bytes for entry in stopped),
        folds=len(uses(root)),
        failures=tuple((stage, reason, count) for (stage, reason), count in reasons.most_common()),
        now=now / 1e9,
    )


def _apart(found: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Finished stages, and states of trainings that are not finished."""
    stopped = [entry for entry in found if entry.path.parent.name == CHECKPOINTS]
    return [entry for entry in found if entry not in stopped], stopped


def _manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest.read(folder)
    except (OSError, ValueError):
        return None


def _kind(name: str, found: Sequence[Entry], manifests: Mapping[Path, Manifest]) -> Kind:
    known = [manifests[entry.path] for entry in found if entry.path in manifests]
    used = [entry.used / 1e9 for entry in found if entry.path in manifests]
    return Kind(
        stage=name,
        finished=sum(manifest.failed is None for manifest in known),
        failed=sum(manifest.failed is not None for manifest in known),
        bytes=sum(entry.bytes for entry in found),
        seconds=sum(manifest.seconds for manifest in known),
        last_used=max(used, default=None),
        least_recently_used=min(used, default=None),
    )
