"""Worker processes with limits: one bad request harms no other, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainables.data.sandbox import MB, Answer, Failure, Request, Sandbox
from trainables.errors import DataError

HERE = "tests.trainables.data.sandboxed"


def asked(seconds: float = 30, memory: int = 512 * MB, **content: Any) -> Request:
    return Request(content=content, seconds=seconds, memory=memory)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(f"{HERE}:misbehaving", workers=2, tries=1) as sandbox:
        yield sandbox


def test_answers_come_in_the_order_of_the_requests_with_their_bytes(sandbox: Sandbox) -> None:
    requests = [asked(number=n, size=n, do="sleep" if n % 7 == 0 else None, pause=0.2) for n in range(20)]
    answers = list(sandbox.map(requests, ahead=5))
    assert [answer.content["done"] for answer in answers if isinstance(answer, Answer)] == list(range(20))
    assert [len(answer.blobs[0]) for answer in answers if isinstance(answer, Answer)] == list(range(20))


def test_no_more_answers_are_ahead_than_allowed(sandbox: Sandbox) -> None:
    begun: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(30):
            begun.append(number)
            yield asked(number=number)

    for taken, _ in enumerate(sandbox.map(requests(), ahead=4)):
        assert len(begun) <= taken + 5


@pytest.mark.parametrize(
    ("request_", "failure"),
    [
        (asked(do="crash"), Failure(kind="crash", detail="SIGSEGV")),
        (asked(do="leave"), Failure(kind="crash", detail="exit code 7")),
        (asked(do="spin", seconds=0.5), Failure(kind="time", detail="0.5 s")),
        (asked(do="hang", seconds=0.25), Failure(kind="wait", detail="3 s")),
        (asked(do="eat"), Failure(kind="memory", detail="512 MB")),
        (asked(do="raise"), Failure(kind="error", detail="ValueError: no such thing")),
    ],
)
def test_a_request_that_fails_is_told_why_and_the_others_are_answered(
    sandbox: Sandbox, request_: Request, failure: Failure
) -> None:
    start = time.monotonic()
    first, bad, last = sandbox.map([asked(number=1), request_, asked(number=2)], ahead=3)
    assert bad == failure
    assert isinstance(first, Answer)
    assert isinstance(last, Answer)
    assert time.monotonic() - start < 60


def test_many_crashes_in_a_row_lose_nothing(sandbox: Sandbox) -> None:
    """Of ``pebble``, workers that die at once take the whole pool with them."""
    outcomes = list(sandbox.map((asked(number=n, do="crash" if n % 3 == 0 else None) for n in range(12)), ahead=12))
    assert [isinstance(each, Answer) for each in outcomes] == [n % 3 != 0 for n in range(12)]


@pytest.mark.parametrize("do", ["crash", "hang"])
def test_what_befalls_a_request_once_is_tried_again(do: str, tmp_path: Path) -> None:
    with Sandbox(f"{HERE}:misbehaving", workers=1) as sandbox:
        (outcome,) = sandbox.map([asked(do=do, once=str(tmp_path / "once"), seconds=0.2)], ahead=1)
    assert isinstance(outcome, Answer)
    assert outcome.content == {"done": "the second time"}


def test_workers_write_no_files(sandbox: Sandbox, tmp_path: Path) -> None:
    (outcome,) = sandbox.map([asked(do="write", file=str(tmp_path / "file"))], ahead=1)
    assert isinstance(outcome, Failure)
    assert "File too large" in outcome.detail


@pytest.mark.parametrize("factory", ["unusable", "dying", "missing"])
def test_workers_that_cannot_start_are_one_sentence(factory: str) -> None:
    sandbox = Sandbox(f"{HERE}:{factory}", workers=1)
    with sandbox, pytest.raises(DataError, match="the processes that read images cannot start here"):
        list(sandbox.map([asked()], ahead=1))


def test_closing_ends_workers_that_are_busy(sandbox: Sandbox) -> None:
    answers = sandbox.map([asked(number=1), asked(do="hang", seconds=600.0), asked(number=2)], ahead=3)
    first = next(answers)
    assert isinstance(first, Answer)
    processes = [worker.process for worker in sandbox._workers]
    sandbox.close()
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * len(processes)


PROGRAM = """
import sys
from trainables.data.sandbox import Request, Sandbox
if __name__ != "__main__":
    raise AssertionError("a worker imported the main program")
with Sandbox("tests.trainables.data.sandboxed:misbehaving", workers=1) as sandbox:
    contents = {"do": None}, {"do": "hang"}
    requests = [Request(content=each, seconds=0.25, memory=2**29) for each in contents]
    for answer in sandbox.map(requests, ahead=2):
        print(answer.content["pid"], flush=True)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_program_however_it_ends(sent: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches workers, too, which leave it to the program; one that hangs ends when its own time is over."""
    (tmp_path / "program.py").write_text(PROGRAM)
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": root},
        process_group=0,
    ) as program:
        assert program.stdout is not None
        worker = int(program.stdout.readline())
        if sent == signal.SIGINT:
            os.killpg(program.pid, sent)
        else:
            program.send_signal(sent)
        program.wait(timeout=20)
    deadline = time.monotonic() + 20
    while _is_running(worker):
        assert time.monotonic() < deadline, "a worker outlived the program"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_the_decoder_brings_neither_torch_nor_ray() -> None:
    """Or every worker would take seconds to start."""
    code = (
        "import sys; from trainables.data.decoding import decoder; decoder(); "
        "print([name for name in ('torch', 'ray', 'sklearn', 'mlflow', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
