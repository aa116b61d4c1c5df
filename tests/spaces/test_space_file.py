"""Space files from elsewhere: only plain values are built, and what no space needs is one sentence."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spaces.errors import SpaceError
from spaces.presets import PRESETS
from spaces.space_file import space_from_file, space_from_yaml
from spaces.yaml_file import MAX_BYTES

SMALL = """\
name: mine
dimensions:
- {name: mixer.name, type: choice, options: [genmix, none], default: genmix}
- {name: alpha, type: float, low: 0.1, high: 1.0, default: 0.5, when: {mixer.name: [genmix]}}
- {name: epochs, type: int, low: 1, high: 9, default: 3}
"""
LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "has an anchor or alias in line 1"),
        (SMALL.replace("alpha,", "&n alpha,"), "has an anchor or alias in line 4"),
        ("[" * 100_000, "nests deeper than 16 in line 1"),
        ("{a: " * 5000, "nests deeper than 16"),
        ("- " * 5000, "nests deeper than 16"),
        (SMALL + "name: again\n", "says the same key twice"),
        (SMALL.replace("low: 1,", "low: 1, low: 2,"), "says the same key twice"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("a: 2000-13-45", "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("a\0b", "is not valid YAML"),
        ("? [a, b]\n: c", "is not valid YAML"),
        ("x" * (MAX_BYTES + 1), f"larger than {MAX_BYTES} bytes"),
        ("", "is not a space"),
        ("[]", "is not a space"),
        ("name: x\ndimensions: [5]", "a dimension without a name"),
        (SMALL.replace("name: mine", "name: [mine]"), "has no 'name'"),
        (SMALL.replace("name: mine", "name: ../mine"), "give it 1 to 40 letters"),
        (SMALL.replace("name: alpha", r'name: "al\npha"'), r"a dimension named 'al\\npha'"),
        (SMALL.replace("type: float", "type: [float]"), r"has the type \['float'\]"),
        (SMALL.replace("low: 0.1", "low: .nan"), "finite bounds"),
        (SMALL.replace("low: 1,", "low: yes,"), "'low' of 'epochs' is True; expected int"),
        (SMALL.replace("high: 9", "high: " + "9" * 400), "is a number of 1329 bits; expected int"),
        (SMALL.replace("[genmix, none]", "[genmix, [none]]"), r"'options' of 'mixer.name' is \['genmix', \['none'\]\]"),
        (SMALL.replace("[genmix, none]", "[genmix, .inf]"), "expected a list of at most 1000 plain values"),
        (SMALL.replace("default: genmix", "default: {a: b}"), r"'default' of 'mixer.name' is \{'a': 'b'\}"),
        (SMALL.replace("{mixer.name: [genmix]}", "{mixer.name: [{a: b}]}"), "a dimension and plain values of it"),
        (SMALL.replace("{mixer.name: [genmix]}", "{5: [genmix]}"), "expected a dimension and plain values of it"),
        (SMALL + "description: [a]\n", r"'description' is \['a'\]; expected a text"),
        (SMALL + f"{'k' * 500}: a\n", "has the unknown key 'k+'..."),
    ],
)
def test_a_file_that_no_space_needs_is_refused_at_once_with_one_sentence(text: str, sentence: str) -> None:
    start = time.process_time()
    with pytest.raises(SpaceError, match=sentence) as raised:
        space_from_yaml(text, source="mine.yaml")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000
    assert time.process_time() - start < 5


def test_a_list_longer_than_any_space_is_refused() -> None:
    many = "".join(f"- {{name: d{n}, type: int, low: 1, high: 9, default: 3}}\n" for n in range(501))
    with pytest.raises(SpaceError, match="has 501 dimensions; expected at most 500"):
        space_from_yaml(f"name: mine\ndimensions:\n{many}", source="mine.yaml")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_named_space_is_read_back_from_its_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(PRESETS[name].to_yaml(), encoding="utf-8")
    assert space_from_file(file, source="space.yaml") == PRESETS[name]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    refusals = {
        "pipe.yaml": "is no regular file",
        "loop.yaml": "cannot be read",
        "latin.yaml": "not UTF-8 text",
        "none.yaml": "cannot be read",
        ".": "is no regular file",
        "a\0b": "cannot be read",
        "/dev/zero": "is no regular file",
    }
    for name, sentence in refusals.items():
        with pytest.raises(SpaceError, match=f"mine {sentence}|mine cannot be read .*{sentence}"):
            space_from_file(tmp_path / name, source="mine")
