"""What a worker of ``fuzz_inputs`` does with one case: call the code that reads such input, and say how it ended."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import resource
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

Outcome: TypeAlias = Mapping[str, Any]
"""``accepted``; or ``refused`` with a sentence; or ``traceback`` with its text."""

Work: TypeAlias = Callable[[Mapping[str, Any]], tuple[Outcome, Sequence[bytes]]]

MAX_SENTENCE = 4000


def judge_of_files() -> Work:
    """What judges files, once SimpleITK is imported."""
    from trainables.data.decoding import decoder

    decoder()
    return _judged


def judge_of_programs() -> Work:
    """What judges command lines and spaces, once all that they need is imported, so that no case pays for it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module in ("chosen_space", "confirm", "cost_estimate", "show", "stages_command", "sync_command"):
        importlib.import_module(f"search.{module}")

    sys.modules["search.runner"] = _no_search()
    return _judged


def _no_search() -> ModuleType:
    """Stands where a search would start: everything that the command line alone can refuse has been checked."""
    module = ModuleType("search.runner")
    finished = SimpleNamespace(exit_code=0)
    module.start_search = module.resume_search = lambda *given: finished  # type: ignore[attr-defined]
    return module


def _judged(case: Mapping[str, Any]) -> tuple[Outcome, Sequence[bytes]]:
    from spaces.errors import InputError

    try:
        outcome = {"command line": _command_line, "table": _table, "space": _space, "npz": _npz, "image": _image}
        return outcome[case["reader"]](case), ()
    except InputError as error:
        return refused(str(error)), ()
    except MemoryError:
        raise
    except Exception:
        return {"traceback": traceback.format_exc()}, ()


def refused(sentence: str) -> Outcome:
    """A refusal, or what is wrong with how it is said."""
    fault = fault_of(sentence)
    return {"refused": sentence} if fault is None else {"traceback": f"no sentence ({fault}): {sentence[:1000]!r}"}


def fault_of(sentence: str) -> str | None:
    """Why a text is no sentence that says what is wrong; None where it is one."""
    if re.search(r"[\x00-\x1f\x7f]", sentence):
        return "it holds line ends or control characters"
    if not sentence.endswith((".", "?", "!")):
        return "it does not end as a sentence does"
    if len(sentence) > MAX_SENTENCE:
        return f"it has {len(sentence)} characters"
    if "Traceback" in sentence or re.search(r"\b0x[0-9a-f]{6,}", sentence):
        return "it quotes the program"
    return None


def _image(case: Mapping[str, Any]) -> Outcome:
    from trainables.data.decoding import decoded

    head, _ = decoded({"path": case["file"], "mask": None, "slice": case.get("slice"), "roi": None})
    return refused(head["bad"]) if "bad" in head else {"accepted": head["shape"]}


def _npz(case: Mapping[str, Any]) -> Outcome:
    from trainables.data.archives import npz_picture, read_npz_labels, read_npz_pictures

    path = Path(case["file"])
    labels, pictures = read_npz_labels(path), read_npz_pictures(path)
    for images in pictures.values():
        for image in images[:3]:
            npz_picture(image)
    return {"accepted": {split: len(names) for split, names in labels.items()}}


def _table(case: Mapping[str, Any]) -> Outcome:
    from trainables.data.source import Source

    source = Source(data=case["data"], labels=case.get("labels"), split_file=case.get("split_file"))
    table = source.table()
    return {"accepted": [len(table.rows), source.digest(table)]}


def _space(case: Mapping[str, Any]) -> Outcome:
    from search.chosen_space import chosen_space
    from spaces.budget import budget_named
    from spaces.describe import describe_space
    from spaces.space_file import space_from_file

    space_from_file(Path(case["file"]), source=case["file"])
    budget = budget_named("quick")
    space, _ = chosen_space(case["file"], (), budget)
    return {"accepted": len(describe_space(space, budget, missing=()))}


def _command_line(case: Mapping[str, Any]) -> Outcome:
    """The real program; it ends where a search would start."""
    from search.cli import main

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # --describe simulates, in a temporary folder
    out, err = io.StringIO(), io.StringIO()
    arguments = [each.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for each in case["arguments"]]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(case["data"]):
        try:
            code = main(arguments)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 99
    said = err.getvalue().strip()
    if code == 0 and not said:
        return {"accepted": 0}
    if code == 2:
        sentence = said.partition(": ")[2]
        for given in arguments:  # what a person typed, however odd, may be said back
            sentence = sentence.replace(given, "...") if len(given) > 100 or not given.isprintable() else sentence
        return refused(re.sub(r"[\x00-\x1f\x7f]", " ", sentence))
    return {"traceback": f"exit code {code}, standard error: {said[-2000:]}"}
