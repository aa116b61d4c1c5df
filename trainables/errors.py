"""Errors of the trial core: what a user can mend, what may be tried again, what is final."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from spaces.errors import InputError


class DataError(InputError):
    """The images or labels given cannot be used; names the file, what was found and what to do."""


class RetryableTrialError(RuntimeError):
    """A trial failed for a reason that another attempt may not meet: out of memory, preemption, I/O."""


_OF_MEMORY = (
    "out of memory",
    "alloc_failed",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to find an engine",
)
"""In the messages of PyTorch, CUDA, cuBLAS, cuDNN (no engine's workspace could be had) and the system."""


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, says that memory was lacking, on the GPU or the CPU."""
    return any(isinstance(each, MemoryError) or _says(each, _OF_MEMORY) for each in _and_what_led_to_it(error))


_OF_ROOM = ("no space left on device", "disk quota exceeded", "database or disk is full")


def lacks_room(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, says that the storage is full; not every library raises an OSError then."""
    return any(
        (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT)) or _says(each, _OF_ROOM)
        for each in _and_what_led_to_it(error)
    )


_OF_STORAGE = (
    "i/o error",
    "input/output error",
    "(os error",
    "stale file handle",
    "unable to open file",
    "unable to stat the file",
    "unable to mmap",
)
"""In the messages of safetensors and PyTorch where the system refused; not where what a file holds is damaged."""


def is_of_storage(error: BaseException) -> bool:
    """Whether an error says that reading or writing failed; not every library raises an OSError then."""
    return isinstance(error, OSError) or _says(error, _OF_STORAGE)


def _and_what_led_to_it(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says(error: BaseException, signs: Sequence[str]) -> bool:
    return any(sign in str(error).lower() for sign in signs)


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
