"""Mutated files of every kind that users give, and command lines: each must be read, or refused with one sentence.

Run:
    python tests/benchmarks/fuzz_inputs.py [--count N] [--small] [--seed N] [--kind NAME] [--keep FOLDER] [--json FILE]

Sound files (images of every format, MedMNIST archives, labels, split files, space files) are mutated: bits flipped, cut
short, spliced, numbers in headers replaced, packed into gzip bombs. Command lines are made up of the program's own
flags with good, bad and missing values; the program runs up to where a search would start.

What a case ends in:

- *accepted*, or *refused* with one sentence;
- *contained* (images and archives alone, also counted as refused): the decoder crashed, took too long or too much
  memory in its worker process, and the file is one bad image of a list;
- *crash*, *hang* (10 s) or *traceback* (an error that is no sentence counts as one too): a fault of this project. The
  case is kept under ``--keep``, and the exit code is 1.

The same seed makes the same cases.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from tests.benchmarks import fuzz_seeds
from tests.benchmarks.fuzz_mutations import Mutation, mutated, mutated_gzip, mutated_npz, mutated_png, mutated_text
from tests.benchmarks.fuzz_worker import fault_of
from trainables.data.limits import SECONDS, in_words, limits
from trainables.data.sandbox import MB, Answer, Failure, Request, Sandbox

OUTCOMES = ("accepted", "refused", "contained", "crashes", "hangs", "tracebacks")
FAULTS = ("crashes", "hangs", "tracebacks")
KINDS = (
    ".mha", ".mhd", ".nii", ".nii.gz", ".dcm", ".png", ".jpg", ".tif", ".npz", "labels.csv", "split file", "space YAML",
    "command line",
)  # fmt: skip
JUDGES: Mapping[str, tuple[str, ...]] = {"judge_of_files": KINDS[:-2], "judge_of_programs": KINDS[-2:]}
"""Functions of ``fuzz_worker`` and what they judge: workers that need not import the program are started in no time."""

AHEAD = 16
UNCHANGED = 0.05
"""Share of cases that are sound: a reader that refuses everything shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of input.

    Args:
        name: as the table calls it, such as ".png".
        reader: which function of ``fuzz_worker`` reads it.
        seeds: sound inputs.
        mutate: how they are changed.
        in_worker: whether the program, too, reads it in a worker process with limits.
    """

    name: str
    reader: str
    seeds: tuple[bytes, ...]
    mutate: Mutation
    in_worker: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input, written where its reader finds it."""

    number: int
    kind: str
    content: bytes
    file: Path | None
    request: Request
    in_worker: bool


def kinds(folder: Path, *, seed: int) -> tuple[Kind, ...]:
    """Every kind, with its seeds."""
    pictures = fuzz_seeds.images(folder, seed=seed)
    changes: Mapping[str, Mutation] = {".nii.gz": mutated_gzip, ".png": mutated_png}
    found = [
        Kind(name=each, reader="image", seeds=seeds, mutate=changes.get(each, mutated), in_worker=True)
        for each, seeds in pictures.items()
    ]
    npz = fuzz_seeds.archives(folder, seed=seed)
    found.append(Kind(name=".npz", reader="npz", seeds=npz, mutate=mutated_npz, in_worker=True))
    for name, reader, seeds in (
        ("labels.csv", "table", fuzz_seeds.TABLES),
        ("split file", "table", fuzz_seeds.SPLITS),
        ("space YAML", "space", fuzz_seeds.spaces()),
        ("command line", "command line", (b"",)),
    ):
        found.append(Kind(name=name, reader=reader, seeds=seeds, mutate=mutated_text, in_worker=False))
    return tuple(found)


def cases(folder: Path, *, count: int, seed: int, among: Sequence[str] = KINDS) -> Iterator[Case]:
    """Cases of all kinds in turn, but only those of some kinds; each file exists once it is asked for."""
    (folder / "seeds").mkdir()
    (folder / "cases").mkdir()
    known = kinds(folder / "seeds", seed=seed)
    pictures = {kind.name: kind.seeds for kind in known}
    data = fuzz_seeds.data_folder(folder / "data", pictures)
    os.mkfifo(data / "pipe.yaml")
    (data / "m.npz").write_bytes(pictures[".npz"][0])
    (data / "labels.csv").write_bytes(fuzz_seeds.TABLES[0])
    (folder / "cases" / "grey.raw").write_bytes(bytes(range(240)) * 2)
    for number in range(count):
        kind = known[number % len(known)]
        if kind.name not in among:
            continue
        yield _case(kind, folder / "cases", data, number, random.Random(f"{seed}/{number}"))


def _case(kind: Kind, folder: Path, data: Path, number: int, rng: random.Random) -> Case:
    content: dict[str, Any] = {"reader": kind.reader, "data": str(data)}
    if kind.reader == "command line":
        content["arguments"] = fuzz_seeds.command_line(rng)
        written = json.dumps(content["arguments"]).encode()
        request = Request(content=content, seconds=SECONDS, memory=4096 * MB)
        return Case(number=number, kind=kind.name, content=written, file=None, request=request, in_worker=False)
    written = rng.choice(kind.seeds)
    if rng.random() >= UNCHANGED:
        written = kind.mutate(written, rng, kind.seeds)
    file = folder / f"{number:06d}{kind.name if kind.name.startswith('.') else '.yaml'}"
    file.write_bytes(written)
    content |= {"file": str(file), "slice": rng.choice((None, "middle", 0))}
    if kind.name in ("labels.csv", "split file"):
        content["labels" if kind.name == "labels.csv" else "split_file"] = str(file)
    seconds, memory = limits(file)
    request = Request(content=content, seconds=seconds, memory=memory)
    return Case(number=number, kind=kind.name, content=written, file=file, request=request, in_worker=kind.in_worker)


def outcome_of(case: Case, outcome: Answer | Failure) -> tuple[str, str]:
    """One of ``OUTCOMES``, and what there is to say."""
    if isinstance(outcome, Answer):
        for name, key in (("accepted", "accepted"), ("refused", "refused"), ("tracebacks", "traceback")):
            if key in outcome.content:
                return name, str(outcome.content[key])
    assert isinstance(outcome, Failure)
    if case.in_worker and outcome.kind != "error" and fault_of(in_words(outcome)) is None:
        return "contained", in_words(outcome)
    name = {"time": "hangs", "wait": "hangs", "error": "tracebacks", "memory": "crashes"}.get(outcome.kind, "crashes")
    return name, f"{outcome.kind}: {outcome.detail}"


def run(
    *, count: int, seed: int, keep: Path, on_fault: Callable[[str], None], among: Sequence[str] = KINDS
) -> dict[str, Counter[str]]:
    """Try cases. Returns: the number of each outcome by kind of input."""
    counts: dict[str, Counter[str]] = {}
    for judge, kinds_judged in JUDGES.items():
        chosen = tuple(kind for kind in kinds_judged if kind in among)
        for case, (ended, said) in _outcomes(judge, count=count, seed=seed, among=chosen):
            counts.setdefault(case.kind, Counter())[ended] += 1
            if ended in FAULTS or (ended == "contained" and keep.is_dir()):
                place = _keep(case, keep, f"{ended}-{case.number:06d}", said)
                if ended in FAULTS:
                    on_fault(f"{ended}: case {case.number}, {case.kind}, kept as {place}\n{said}")
    return counts


def _outcomes(judge: str, *, count: int, seed: int, among: Sequence[str]) -> Iterator[tuple[Case, tuple[str, str]]]:
    waiting: deque[Case] = deque()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:

        def requests() -> Iterator[Request]:
            for case in cases(Path(name), count=count, seed=seed, among=among):
                waiting.append(case)
                yield case.request

        with Sandbox(f"tests.benchmarks.fuzz_worker:{judge}", workers=len(os.sched_getaffinity(0))) as sandbox:
            for answer in sandbox.map(requests(), ahead=AHEAD):
                case = waiting.popleft()
                yield case, outcome_of(case, answer)
                if case.file is not None:
                    case.file.unlink()


def _keep(case: Case, keep: Path, name: str, said: str) -> Path:
    keep.mkdir(parents=True, exist_ok=True)
    suffix = case.file.name[6:] if case.file is not None else ".json"
    place = keep / f"{name}{suffix}"
    place.write_bytes(case.content)
    place.with_name(f"{name}.txt").write_text(f"{case.kind}\n{case.request.content}\n{said}\n", encoding="utf-8")
    return place


def print_table(counts: Mapping[str, Counter[str]]) -> None:
    """One line a kind and one for all."""
    print(f"{'input':14}{'cases':>8}" + "".join(f"{name:>12}" for name in OUTCOMES))
    total: Counter[str] = sum(counts.values(), Counter())
    for name, row in [*counts.items(), ("all", total)]:
        print(f"{name:14}{row.total():>8}" + "".join(f"{_refused(row, each):>12}" for each in OUTCOMES))


def _refused(row: Counter[str], outcome: str) -> int:
    """A count; files that are contained are refused."""
    return row["refused"] + row["contained"] if outcome == "refused" else row[outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, try the cases, print the table; 1 if a case ended in a fault."""
    purpose = str(__doc__).split("\n")[0]
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/fuzz_inputs.py", description=purpose)
    parser.add_argument("--count", type=int, metavar="N", help="how many cases (10000)")
    parser.add_argument("--small", action="store_true", help="300 cases")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which cases (0)")
    parser.add_argument("--kind", choices=KINDS, help="those of one kind alone")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-faults"), metavar="FOLDER", help="for cases with faults"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts here as well")
    options = parser.parse_args(arguments)
    start = time.time()
    count = options.count or (300 if options.small else 10_000)
    counts = run(
        count=count,
        seed=options.seed,
        keep=options.keep,
        on_fault=lambda text: print(text, flush=True),
        among=KINDS if options.kind is None else (options.kind,),
    )
    print_table(counts)
    faults = sum(row[name] for row in counts.values() for name in FAULTS)
    print(f"{time.time() - start:.0f} s, {faults} faults")
    if options.json is not None:
        named = {kind: {name: _refused(row, name) for name in OUTCOMES} for kind, row in counts.items()}
        found = {"seed": options.seed, "cases": count, "faults": faults, "kinds": named}
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
