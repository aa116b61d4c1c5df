"""Joining a running Ray cluster: where it is, whether it answers, and what to do where it refuses."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from search.settings import SettingsError

_ANSWER_SECONDS = 5.0
_TAKE_PART = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with its head's token ('ray get-auth-token' prints it "
    "there), on every machine that takes part"
)


def connect(address: str, **options: Any) -> None:
    """Connect this process to a running Ray cluster.

    Args:
        address: HOST:PORT of its head, or "auto" for the one this machine belongs to.
        **options: further ones of ``ray.init``.

    Raises:
        SettingsError: there is none, it does not answer, refuses this machine's token, or is of another version.
    """
    import ray
    from ray.exceptions import AuthenticationError

    place = _place(address)
    called = f"--address {address}" if place == address else f"--address {address} ({place})"
    if not _answers(place):
        raise SettingsError(f"{called} does not answer; give HOST:PORT of a running Ray head, or 'auto'.")
    with _errors_of_libraries() as printed:
        try:
            ray.init(address=place, **options)
        except AuthenticationError as error:
            raise SettingsError(f"{called} wants a token ({_first_sentence(error)}); {_TAKE_PART}.") from None
        except Exception as error:
            if "InvalidAuthToken" in printed():
                raise SettingsError(
                    f"{called} refuses this machine's token, or that it has none; {_TAKE_PART}."
                ) from None
            raise SettingsError(
                f"{called} cannot be joined ({_first_sentence(error)}); check that the head runs the same versions of "
                f"Ray and Python and that a node of it runs on this machine ('ray start --address ...')."
            ) from None


def _place(address: str) -> str:
    """HOST:PORT. Raises: SettingsError for any other text, and for "auto" where there is no cluster."""
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address_or_die

        try:
            return str(canonicalize_bootstrap_address_or_die("auto"))
        except (ConnectionError, ValueError) as error:
            raise SettingsError(
                f"--address auto finds no cluster on this machine ({_first_sentence(error)}); start one with 'ray "
                f"start', or give HOST:PORT of its head."
            ) from None
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"--address {address} is no address; give HOST:PORT of a running Ray head, or 'auto'.")
    return address


def _answers(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS):
            return True
    except OSError:
        return False


@contextmanager
def _errors_of_libraries() -> Iterator[Callable[[], str]]:
    """Keep what is printed on the standard error meanwhile: Ray says there alone that it was a token that is wrong."""
    with tempfile.TemporaryFile() as file:
        original = os.dup(2)
        os.dup2(file.fileno(), 2)

        def printed() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield printed
        finally:
            os.dup2(original, 2)
            os.close(original)


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__
