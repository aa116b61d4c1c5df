"""What a check of the doctor finds: fine, worth knowing, or in the way; and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's: ``text`` says what was found and, unless it is fine, what to do."""

    state: State
    text: str


def fine(text: str) -> Finding:
    """Nothing to do."""
    return Finding(state="ok", text=text)


def wary(text: str) -> Finding:
    """A search can run, but perhaps not as wished."""
    return Finding(state="warn", text=text)


def wrong(text: str) -> Finding:
    """A search cannot run so."""
    return Finding(state="fail", text=text)
