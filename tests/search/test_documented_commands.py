"""Every command that a page of documentation names is one that the program takes."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from search import flags
from search.cli import SUBCOMMANDS
from search.new_search import new_search, resumption

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"search/cluster/{path.name}" for path in (ROOT / "search/cluster").glob("*.md")),
)


def commands() -> Iterator[tuple[str, str]]:
    """Each page and each command in it, in a block of its own or within a sentence."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        found = re.findall(r"^ {4}(?:.*&& )?(python .*)$", text, flags=re.MULTILINE)
        found += re.findall(r"`(python [^`]*)`", text)
        yield from ((page, command.partition(" #")[0].strip()) for command in dict.fromkeys(found))


def parser_of(subcommand: str) -> argparse.ArgumentParser:
    if subcommand in ("show", "confirm"):
        return getattr(flags, f"{subcommand}_parser")()  # type: ignore[no-any-return]
    return getattr(importlib.import_module(f"search.{subcommand}_flags"), f"{subcommand}_parser")()  # type: ignore[no-any-return]


SEARCHES = [(page, command) for page, command in commands() if command.startswith("python search/run.py")]
SCRIPTS = [(page, command) for page, command in commands() if "tests" in command.split()[1:3][-1]]


def test_the_pages_name_commands_of_both_kinds() -> None:
    assert len(SEARCHES) > 15
    assert len(SCRIPTS) > 5


@pytest.mark.parametrize(("page", "command"), SEARCHES)
def test_a_documented_search_is_one_that_the_program_takes(page: str, command: str, tmp_path: Path) -> None:
    words = [str(tmp_path) if word == "FOLDER" else word for word in shlex.split(command.replace("...", ""))[2:]]
    words = [word.partition("|")[0] for word in words]
    if words and words[0] in SUBCOMMANDS:
        parser_of(words[0]).parse_args(words[1:])
        return
    given = flags.search_parser({}).parse_args(words)
    if given.resume is not None:
        resumption(given)
    elif given.config is None:
        new_search(given)


@pytest.mark.parametrize(("page", "command"), SCRIPTS)
def test_a_documented_script_is_there(page: str, command: str) -> None:
    words = command.split()
    name = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_is_in_the_readme(subcommand: str) -> None:
    assert f"search/run.py {subcommand}" in (ROOT / "README.md").read_text()
