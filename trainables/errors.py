"""Errors of the trial core: what a user can mend, what may be tried again, what is final."""

from __future__ import annotations

import errno

from spaces.errors import InputError


class DataError(InputError):
    """The images or labels given cannot be used; names the file, what was found and what to do."""


class RetryableTrialError(RuntimeError):
    """A trial failed for a reason that another attempt may not meet: out of memory, preemption, I/O."""


_OF_MEMORY = ("out of memory", "alloc_failed", "can't allocate memory", "cannot allocate memory")
"""In the messages of PyTorch, CUDA, cuBLAS and the system that say that memory is lacking."""


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory was lacking, on the GPU or the CPU."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OF_MEMORY)


_OF_ROOM = ("no space left on device", "disk quota exceeded", "database or disk is full")


def lacks_room(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, says that the storage is full; not every library raises an OSError then."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(sign in str(error).lower() for sign in _OF_ROOM):
            return True
        error = error.__cause__ or error.__context__
    return False


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
