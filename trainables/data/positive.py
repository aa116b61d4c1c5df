"""Which of two classes is the diseased one, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

NEGATIVE_NAMES = frozenset(
    {
        *("0", "n", "neg", "negative", "no", "false", "absent", "normal", "cn", "nc", "cognitively normal"),
        *("healthy", "healthy control", "healthy controls", "hc", "control", "controls", "ctrl", "ctrls"),
        *("normal control", "normal controls", "uninfected", "unaffected", "undiseased"),
    }
)
BENIGN = "benign"
"""Negative beside a malignant class, positive beside a healthy one."""

_GOOD = NEGATIVE_NAMES | {BENIGN, "stable", "controlled", "favorable", "favourable"}
"""What is worse where it is denied: "not normal", "unstable"."""

_DENIAL = re.compile(r"(?:no|non|not|without|w/o) (.+)")
_JOINED = re.compile(r"nofinding|nondiseased")
_DENIALS = tuple(map(re.compile, ("without", "w/o", r"(?<=\bwith)out", "non", "not", r"\bno", r"\bun")))
"""What sets a name apart from the one that it denies; the short ones where a word begins: "sound" denies nothing."""

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where a word begins inside "CtNonCOVID"."""


def positive_class(classes: Sequence[str]) -> int:
    """Which of two classes is the positive one, whose sensitivity and precision are meant.

    A name is healthy that, without regard to case and with blanks for hyphens and underscores, is one of
    ``NEGATIVE_NAMES``, or begins with the word "no", "non", "not", "without" or "w/o" ("no_findings", "non-diseased");
    or whose letters are those of the other name with such a word or "un" before a part of it ("Nondemented" beside
    "Demented", "CT_NonCOVID" beside "CT_COVID"). What denies something good is not healthy ("not normal"). If one of
    the two names is healthy, the other is positive; if none is and one is benign, the other is positive; otherwise the
    alphabetically last is.

    Args:
        classes: two class names.

    Returns:
        The index of the positive class in ``classes``.

    Raises:
        ValueError: not exactly two classes.
    """
    if len(classes) != 2:
        raise ValueError(f"a positive class exists among two classes; got {len(classes)}: {list(classes)}.")
    return max((0, 1), key=lambda index: (_severity(classes[index], classes[1 - index]), classes[index]))


def _severity(name: str, other: str) -> int:
    plain, denied = _plain(name), _denied(name, other)
    if denied is not None:
        return 2 if denied in _GOOD else 0
    if name.strip() == "-" or plain in NEGATIVE_NAMES or _JOINED.match(plain):
        return 0
    return 1 if plain == BENIGN else 2


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())


def _denied(name: str, other: str) -> str | None:
    """What a name says is not there, in ``_plain`` letters."""
    words, rest = _plain(_HUMP.sub(" ", name)), _letters(other)
    for denial in _DENIALS:
        for match in denial.finditer(words):
            if rest and _letters(words[: match.start()] + words[match.end() :]) == rest:
                return _plain(other)
    found = _DENIAL.fullmatch(_plain(name))
    return found[1] if found else None


def _letters(name: str) -> str:
    return "".join(filter(str.isalpha, name.casefold()))
