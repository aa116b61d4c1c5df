"""Mutations of bytes and texts for ``fuzz_inputs``: what a careless copy or a hostile hand does to a file."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

Mutation: TypeAlias = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
"""From bytes, a source of randomness and other files of the kind to other bytes."""

INTEGERS = (0, 1, 2, 7, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
NUMBERS = ("0", "-1", "1", "3", "16385", "99999", "2147483647", "4294967296", "9" * 20, "9" * 400, "1e308", "nan", "")
HEADER_BYTES = 400
BOMB_BYTES = 2**28


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """One to three mutations on top of each other."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(data, rng, others)
    return data


def _at(data: bytes, rng: random.Random) -> int:
    """A place in a file, in its header as often as anywhere else."""
    return rng.randrange(min(len(data), HEADER_BYTES) if rng.random() < 0.5 else len(data)) if data else 0


def flip_bits(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.randint(1, 8)):
        changed[_at(changed, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Cut the file short."""
    return data[: _at(data, rng)]


def delete(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Leave a piece out."""
    start = _at(data, rng)
    return data[:start] + data[start + rng.randint(1, 64) :]


def insert(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Put random bytes, or many equal ones, in between."""
    start = _at(data, rng)
    piece = rng.randbytes(rng.randint(1, 64)) if rng.random() < 0.5 else rng.randbytes(1) * rng.randint(1, 5000)
    return data[:start] + piece + data[start:]


def repeat(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Say a piece several times."""
    start = _at(data, rng)
    return data[:start] + data[start : start + rng.randint(1, 200)] * rng.randint(2, 50) + data[start:]


def splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Begin as this file and go on as another one."""
    other = rng.choice(others)
    return data[: _at(data, rng)] + other[_at(other, rng) :]


def set_integer(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Overwrite one to three binary numbers, sizes and offsets among them."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        code = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q", "<f", "<d"))
        number = rng.choice(INTEGERS)
        if code[1] in "fd":
            value = struct.pack(code, rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf"))))
        else:
            value = struct.pack(code, number % 2 ** (8 * struct.calcsize(code)))
        start = _at(data, rng)
        changed[start : start + len(value)] = value
    return bytes(changed)


def set_number_in_text(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Write another number over a written one, as in a MetaImage header."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:2000]))
    if not found:
        return set_integer(data, rng, others)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS).encode() + data[match.end() :]


def swap_lines(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Drop, double or exchange lines of a header."""
    lines = data.split(b"\n", 40)
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one] if rng.random() < 0.5 else lines[other]
    return b"\n".join(lines)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, truncate, delete, insert, repeat, splice, set_integer, set_integer, set_number_in_text, swap_lines,
)  # fmt: skip


def mutated_png(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Mutate, then mend the checksums of most chunks, without which libpng looks no further."""
    changed = bytearray(mutated(data, rng, others))
    start = 8
    while rng.random() < 0.95 and start + 12 <= len(changed):
        end = start + 8 + int.from_bytes(changed[start : start + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[start + 4 : end]).to_bytes(4, "big")
        start = end + 4
    return bytes(changed)


@cache
def _zeros() -> bytes:
    """A gzip member of ``BOMB_BYTES`` zeros; members may follow each other."""
    return gzip.compress(bytes(BOMB_BYTES), compresslevel=1, mtime=0)


def mutated_gzip(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Mutate what is inside, or the compressed bytes themselves, or append many gigabytes of zeros, or zip again."""
    kind = rng.random()
    if kind < 0.5:
        return gzip.compress(mutated(gzip.decompress(data), rng, [gzip.decompress(each) for each in others]), mtime=0)
    if kind < 0.9:
        return mutated(data, rng, others)
    if kind < 0.97:
        head = gzip.compress(set_integer(gzip.decompress(data)[:352], rng, others), mtime=0)
        return head + _zeros() * rng.randint(1, 40)
    for _ in range(rng.randint(1, 30)):
        data = gzip.compress(data, mtime=0)
    return data


def mutated_npz(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Mutate the arrays inside, their headers first, or the archive's own bytes; or rename, double and lie."""
    if rng.random() < 0.4:
        return mutated(data, rng, others)
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(changed, "w", compression=compression) as archive:
        warnings.simplefilter("ignore")  # a name may be there twice: that is the point
        for name, content in members.items():
            new = _mutated_npy(content, rng, list(members.values())) if rng.random() < 0.5 else content
            called = rng.choice((*members, "../x.npy")) if rng.random() < 0.02 else name
            archive.writestr(zipfile.ZipInfo(called), new, compress_type=compression)  # dated 1980, as ever
    return changed.getvalue()


def _mutated_npy(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.5:
        return mutated(content, rng, others)
    header = content[10 : 10 + int.from_bytes(content[8:10], "little")].decode("latin-1")
    shape = rng.choice(("()", "(0,)", "(-1,)", f"({2**40},)", f"({2**62}, 4)", "(2, 2, 2, 2, 2)", "(5", "[[" * 300))
    kind = rng.choice(("|O", "<f8", "|u1", "<U1000000", "|V8", "<M8[ns]", "<c16", "|S5", "x"))
    header = re.sub(r"\([^)]*\)", shape, header) if rng.random() < 0.5 else header
    header = re.sub(r"'descr': '[^']*'", f"'descr': '{kind}'", header) if rng.random() < 0.5 else header
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content[128:]


PIECES = (
    "\0", "\r", "\n", "\t", '"', "'", ",", ";", "=", "=HYPERLINK(1)", "@SUM(1)", "..", "../../etc/passwd",
    "/etc/passwd", "/dev/zero", "~", "$(reboot)", "`reboot`", "\u202e", "\u2028", "\ufeff", "\ud7ff", "é", "漢", "🫀",
    "a" * 300, "x" * 5000, "9" * 5000, "-1", "1e999", ".nan", ".inf", "null", "true", "[", "]", "[" * 2000, "{",
    "{" * 200, "}", "&a", "*a", "<<: *a", "!!python/object/apply:os.system ['x']", "!!binary x",
    "!!timestamp 2000-13-45", "2000-13-45", "? ", ": ", "- ", "|", ">", "%YAML 9.9", "---", "...", "#", "%", "[/]",
    "[red]", "{}", "{0}", "%s", "0x10", "1_0",
)  # fmt: skip
"""Pieces that mean something to a parser, a shell, a spreadsheet or a terminal."""


def mutated_text(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Put such pieces into a text, exchange and drop lines and words, or mutate it as bytes."""
    if rng.random() < 0.2:
        return mutated(data, rng, others)
    text = data.decode("utf-8")
    for _ in range(rng.choice((1, 1, 2, 4))):
        text = rng.choice((_with_piece, _with_word, _with_lines))(text, rng)
    if rng.random() < 0.05:
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")), errors="replace")
    return text.encode("utf-8", errors="replace")


def _with_piece(text: str, rng: random.Random) -> str:
    start = rng.randint(0, len(text))
    return text[:start] + rng.choice(PIECES) + text[start:]


def _with_word(text: str, rng: random.Random) -> str:
    words = list(re.finditer(r"[\w.-]+", text))
    if not words:
        return text
    one, other = rng.choice(words), rng.choice(words)
    new = rng.choice((rng.choice(PIECES), rng.choice(NUMBERS), other.group(), ""))
    return text[: one.start()] + new + text[one.end() :]


def _with_lines(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[one]
    elif kind == 1:
        lines[one:one] = [lines[other]] * rng.choice((1, 1, 2, 1000))
    elif kind == 2:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 3:
        lines[one] = " " * rng.randint(1, 9) + lines[one]
    else:
        lines[one] = lines[one].lstrip()
    return "\n".join(lines)
