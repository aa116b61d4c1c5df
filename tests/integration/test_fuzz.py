"""A few hundred mutated inputs of every kind: each is read, or refused with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.fuzz_inputs import FAULTS, KINDS, cases, run
from tests.benchmarks.fuzz_worker import fault_of

pytestmark = pytest.mark.integration


def test_mutated_inputs_end_in_success_or_one_sentence(tmp_path: Path) -> None:
    faults: list[str] = []
    counts = run(count=260, seed=6, keep=tmp_path / "faults", on_fault=faults.append)
    assert faults == []
    assert tuple(counts) == KINDS
    assert all(row.total() == 20 and not any(row[name] for name in FAULTS) for row in counts.values())
    assert all(row["refused"] for row in counts.values()), "a reader that accepts everything checks nothing"
    assert sum(row["accepted"] > 0 for row in counts.values()) >= 11, "readers that refuse everything are of no use"


def test_the_same_seed_makes_the_same_cases(tmp_path: Path) -> None:
    def contents(name: str, seed: int) -> list[bytes]:
        (tmp_path / name).mkdir()
        return [case.content for case in cases(tmp_path / name, count=39, seed=seed)]

    assert contents("one", 1) == contents("same", 1)
    assert contents("two", 2) != contents("again", 1)


@pytest.mark.parametrize(
    "text", ["no end", "two\nlines.", "Traceback (most recent call last).", "at 0x7f3a12345678.", "x" * 5000 + "."]
)
def test_what_is_no_sentence_counts_as_a_fault(text: str) -> None:
    assert fault_of(text) is not None
    assert fault_of("a/1.png is empty (0 bytes); copy it again.") is None
