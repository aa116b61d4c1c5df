"""The storage folder: finding searches in it, and making room for a new one."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from mlflow_tracking.connect import TrackingError, check_server
from search.commands import resume_command
from search.settings import SettingsError
from spaces.errors import nearest
from trainables.data.locked import LOCKED_FILE
from trainables.errors import lacks_room
from trainables.ledger import WARM_START_FILE, Ledger

_BEFORE_THE_RECORD = {LOCKED_FILE, WARM_START_FILE}
_RECORDED_AFTER = 60.0
"""Seconds within which a search is recorded once its folder is there; it takes a moment."""


def find_search(storage: Path, name: str | None) -> Ledger:
    """The search of that name, or the one started last.

    Raises: SettingsError if there is none.
    """
    found = {path.parent.name: path.parent for path in storage.resolve().glob("*/search.json")}
    if not found:
        raise SettingsError(
            f"no search was found in {storage.resolve()}; start one, or name its folder with --storage."
        )
    if name is not None and name not in found:
        raise SettingsError(f"no search '{name}' is in {storage.resolve()}; {nearest(name, found)}.")
    created = {each: _created(folder) for each, folder in found.items()}
    chosen = name if name is not None else max(created, key=lambda each: created[each] or 0.0)
    if created[chosen] is None:
        raise SettingsError(
            f"'{found[chosen] / 'search.json'}' cannot be read as a search's record; it is damaged or of another "
            f"version. Restore it, or name another search."
        )
    return Ledger(found[chosen])


def _created(folder: Path) -> float | None:
    """When a search was created; None if its record cannot be read."""
    try:
        return Ledger(folder).search().created
    except (OSError, ValueError, TypeError, KeyError):
        return None


def reserve(storage: Path, name: str | None, space: str) -> Path:
    """Create the folder of a new search, under ``name`` or under a new name from space, date and time.

    Raises: SettingsError if the name is taken or the storage cannot be written.
    """
    wanted = name or f"{space}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in range(1000):
        folder = storage.resolve() / (wanted if attempt == 0 else f"{wanted}-{attempt + 1}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if _is_abandoned(folder):
                return folder
            if name is not None or not folder.is_dir():
                raise SettingsError(
                    f"--name '{wanted}' is in use in {storage}; choose another name, or go on with that search "
                    f"by: {resume_command(Ledger(folder))}"
                ) from None
        except OSError as error:
            raise SettingsError(
                f"--storage {storage} cannot be written ({error.strerror}); name a folder that can."
            ) from None
        else:
            return folder
    raise SettingsError(f"--storage {storage} has a thousand searches of this second; choose a name with --name.")


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder was reserved some time ago for a search that was killed before it was recorded.

    What such a search had written before that is removed.
    """
    try:
        held = list(folder.iterdir())
        if time.time() - folder.stat().st_mtime < _RECORDED_AFTER or {path.name for path in held} - _BEFORE_THE_RECORD:
            return False
        for path in held:
            path.unlink()
    except OSError:
        return False
    return True


def check_writable(storage: Path) -> None:
    """For commands that add to a search or to what searches share.

    Raises:
        SettingsError: nothing can be written there.
        OSError: it is full.
    """
    probe = storage / f".probe-{uuid.uuid4().hex}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        if lacks_room(error):
            raise
        raise SettingsError(
            f"--storage {storage} cannot be written ({error.strerror or type(error).__name__}), and this command has "
            f"to; mend that."
        ) from None


def check_tracking(search: Ledger) -> None:
    """For commands that write where a search is tracked, or show it. Raises: TrackingError if that cannot be used."""
    try:
        check_server(search.search().tracking_uri)
    except TrackingError as error:
        raise TrackingError(
            f"{error} Where '{search.folder.name}' is tracked elsewhere by now: "
            f"{resume_command(search)} --tracking-uri ADDRESS"
        ) from None
