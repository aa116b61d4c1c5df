"""A search's report in a browser: on a phone, on a screen, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from search.report.compare import write_comparison
from search.report.write import write_report
from tests.integration.chromium import MISSING, PROGRAM, Tab, chromium
from tests.mlflow_tracking.made_up import REAL, new_ledger
from tests.search.test_report import add_scored, confirm, fill
from trainables.ledger import Ledger

pytestmark = [pytest.mark.integration, pytest.mark.skipif(PROGRAM is None, reason=MISSING)]

_VISIBLE = "[...document.querySelectorAll('{}')].filter((each) => each.getClientRects().length > 0).length"
_PAPER = 718
"""Pixels between the margins of an A4 page."""
_DRAWN = "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = fill(tmp_path_factory.mktemp("storage"))
    confirm(ledger)
    write_report(ledger)
    return ledger


def check(tab: Tab, page: Path, *, width: int, dark: bool = False) -> None:
    tab.open(page.as_uri(), width=width, dark=dark)
    tab.wait_until(_DRAWN)
    assert tab.complaints() == []
    assert tab.requested() == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, False), (1400, True)], ids=str)
def test_the_report_is_whole_in_a_browser(tab: Tab, ledger: Ledger, tmp_path: Path, width: int, dark: bool) -> None:
    check(tab, ledger.folder / "report.html", width=width, dark=dark)
    assert tab.evaluate(_VISIBLE.format(".plot")) >= 12
    assert tab.evaluate(_VISIBLE.format(".still")) == 0, "a chart is there in its place"
    assert tab.evaluate(_VISIBLE.format(".picture")) == 6
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark
    letters = "[...document.querySelectorAll('.plot text')].map((each) => parseFloat(getComputedStyle(each).fontSize))"
    assert tab.evaluate(f"Math.min(...{letters})") >= 8
    tab.screenshot(tmp_path / "report.png")


def test_paper_gets_still_pictures(tab: Tab, ledger: Ledger) -> None:
    check(tab, ledger.folder / "report.html", width=1000)
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate(_VISIBLE.format(".plot")) == 0
    assert tab.evaluate(_VISIBLE.format(".still")) == 11
    assert tab.evaluate(_VISIBLE.format("nav")) == 0
    tab.call("Emulation.setDeviceMetricsOverride", width=_PAPER, height=900, deviceScaleFactor=1, mobile=False)
    assert tab.evaluate("document.documentElement.scrollWidth") <= _PAPER, "a printer would shrink all of it"
    tab.call("Emulation.setEmulatedMedia", media="")


def test_a_comparison_is_whole_in_a_browser(tab: Tab, ledger: Ledger, tmp_path: Path) -> None:
    other = new_ledger(tmp_path, "other")
    add_scored(other, REAL, level=0.5)
    page = tmp_path / "comparison.html"
    write_comparison([ledger, other], page)
    for width in (390, 1400):
        check(tab, page, width=width)
