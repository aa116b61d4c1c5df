"""Errors of the trial core: what a user can mend, what may be tried again, what is final."""

from __future__ import annotations

from spaces.errors import InputError


class DataError(InputError):
    """The images or labels given cannot be used; names the file, what was found and what to do."""


class RetryableTrialError(RuntimeError):
    """A trial failed for a reason that another attempt may not meet: out of memory, preemption, I/O."""


class FinalTrialError(RuntimeError):
    """A trial failed and would fail again in the same way."""


class LeakError(FinalTrialError):
    """An image of a test patient reached a stage that trains."""


class DivergedError(FinalTrialError):
    """A training ended in non-finite losses or useless images; the message says which."""


class EmptyPoolError(FinalTrialError):
    """A mixer that needs synthetic images was given none."""


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """Raised out of ``on_step`` to leave a long training early; what was finished stays."""
