"""Signals are noted whatever the main thread is doing, and a search that cannot be left is ended all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

PRELUDE = """
import hashlib, os, signal, sys, threading, time
from search.stop import Stop

def send(*numbers, after=0.3):
    def later():
        for number in numbers:
            time.sleep(after)
            os.kill(os.getpid(), number)
    threading.Thread(target=later, daemon=True).start()

def be_caught_in_c(seconds):
    # returns to Python, and so to its signal handlers, only when it is done
    start = time.monotonic()
    hashlib.pbkdf2_hmac("sha512", b"x", b"y", 100_000)
    hashlib.pbkdf2_hmac("sha512", b"x", b"y", int(100_000 * seconds / (time.monotonic() - start)))

noted = lambda: print("noted", flush=True)
stuck = lambda: print("stuck", flush=True)
"""


def run(code: str) -> tuple[int, list[str]]:
    """The exit code and the lines that a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_first_signal_is_noted_and_the_search_leaves_by_itself() -> None:
    code = """
    stop = Stop(on_note=noted, on_stuck=stuck, patience=5)
    with stop.handled():
        stop.only_note()
        send(signal.SIGTERM)
        time.sleep(1)
        stop.only_kill()
        print(stop.exit_code)
    """
    assert run(code) == (0, ["noted", "143"])


def test_a_search_that_is_caught_in_ray_is_ended_in_time() -> None:
    code = """
    stop = Stop(on_note=noted, on_stuck=stuck, patience=1)
    with stop.handled():
        stop.only_note()
        send(signal.SIGTERM)
        be_caught_in_c(20)
        print("never")
    """
    start = time.monotonic()
    assert run(code) == (128 + signal.SIGTERM, ["noted", "stuck"])
    assert time.monotonic() - start < 20


def test_a_second_signal_ends_at_once() -> None:
    code = """
    stop = Stop(on_note=noted, on_stuck=stuck, patience=30)
    with stop.handled():
        stop.only_note()
        send(signal.SIGINT, signal.SIGINT)
        for _ in range(300):
            time.sleep(0.1)
        print("never")
    """
    assert run(code) == (130, ["noted"])


def test_before_trials_run_a_signal_interrupts_where_it_arrives() -> None:
    code = """
    stop = Stop(on_note=noted, on_stuck=stuck, patience=30)
    try:
        with stop.handled():
            send(signal.SIGINT)
            time.sleep(20)
    except KeyboardInterrupt:
        print("interrupted", stop.exit_code)
    """
    assert run(code) == (0, ["interrupted 130"])


def test_the_handlers_are_as_before_at_the_end() -> None:
    code = """
    before = signal.getsignal(signal.SIGTERM)
    with Stop().handled():
        pass
    print(signal.getsignal(signal.SIGTERM) is before, signal.set_wakeup_fd(-1))
    """
    assert run(code) == (0, ["True -1"])


def test_signals_that_ask_for_nothing_are_left_alone() -> None:
    code = """
    signal.signal(signal.SIGUSR2, lambda *_: print("theirs", flush=True))
    stop = Stop(on_note=noted, on_stuck=stuck, patience=1)
    with stop.handled():
        stop.only_note()
        send(signal.SIGUSR2)
        time.sleep(2)
    print(stop.exit_code)
    """
    assert run(code) == (0, ["theirs", "None"])
