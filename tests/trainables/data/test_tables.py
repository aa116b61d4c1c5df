"""Tables as people and programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.data.tables import read_table
from trainables.errors import DataError


def cells(folder: Path, text: str) -> list[tuple[int, tuple[str, ...]]]:
    (folder / "t.csv").write_text(text, encoding="utf-8", newline="")
    return [(row.line, row.cells) for row in read_table(folder / "t.csv", "t.csv")]


def test_blanks_after_commas_leave_quotes_what_they_are(tmp_path: Path) -> None:
    text = 'path, label, roi\n0.png, "normal", "1,2,8,8"\n1.png,  "late, or 5""", ""\n'
    assert cells(tmp_path, text) == [
        (1, ("path", "label", "roi")),
        (2, ("0.png", "normal", "1,2,8,8")),
        (3, ("1.png", 'late, or 5"', "")),
    ]


def test_empty_rows_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    text = '\ufeff"path", label \r\n , \r\n\r\n"a\r\nb",5" wide\r\n'
    assert cells(tmp_path, text) == [(1, ("path", "label")), (5, ("a\r\nb", '5" wide'))]


@pytest.mark.parametrize(
    ("text", "line"),
    [('a,b\n1,"x" ,y\n', 2), ('a,b\n1,"x"y\n', 2), ('a,b\n1,x\n\n2,"y\n3,z\n4,z\n', 4), ('"a', 1)],
)
def test_a_quote_in_a_wrong_place_is_named_by_the_line_where_its_row_begins(
    text: str, line: int, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as raised:
        cells(tmp_path, text)
    assert str(raised.value).startswith(f"t.csv is no comma-separated table from line {line} on (")
    assert str(raised.value).endswith(
        '); expected quotes around whole cells, such as "1,2,8,8", with a comma or the line\'s end right behind. '
        "Check its quotes."
    )
