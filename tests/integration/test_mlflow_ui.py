"""MLflow's own pages over a finished search, in a browser: what a person who opens them sees without a click.

The pictures of what was seen are kept in the folder that GENMIX_SCREENSHOTS names, if it names one.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_tracking import names
from mlflow_tracking.projector import Projector
from search.report.write import write_report
from tests.integration.chromium import MISSING, PROGRAM, Tab, chromium
from tests.search.tiny_search import GENMIX, MIXUP, NAME, compute, finish, new_search
from trainables.files import read_json, write_json
from trainables.ledger import Ledger
from trainables.metrics.interval import Interval

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason=MISSING),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

_TEXT = "document.body.innerText"


@dataclass(frozen=True, kw_only=True)
class Site:
    """MLflow's pages of a search.

    ``page`` is the address that ``ui`` printed, ``trials`` are the runs of the trials, the best first.
    """

    page: str
    search: Run
    trials: tuple[Run, ...]

    @property
    def base(self) -> str:
        return self.page.partition("/#/")[0]

    def run_page(self, run: Run, tail: str = "") -> str:
        return f"{self.base}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{tail}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A search of two trials, computed, written to a database and served by ``search/run.py ui``."""
    ledger = finished(tmp_path_factory.mktemp("site"))
    write_report(ledger)
    uri = ledger.search().tracking_uri
    projector = Projector(ledger, uri)
    projector.close(interrupted=False)
    projector.sync()
    runs = MlflowClient(uri).search_runs(["1"], order_by=["metrics.`balanced_accuracy` DESC"])
    command = [sys.executable, "search/run.py", "ui", NAME, "--storage", str(ledger.storage)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "200"})
    try:
        yield Site(
            page=printed_address(server),
            search=next(run for run in runs if run.data.tags[names.KIND] == names.KIND_SEARCH),
            trials=tuple(run for run in runs if run.data.tags[names.KIND] == names.KIND_TRIAL),
        )
    finally:
        server.terminate()
        server.communicate(timeout=30)


def finished(place: Path) -> Ledger:
    """Two trials whose scores, 0.9 and 0.6 in every fold, and intervals are made up; the rest was computed."""
    ledger = new_search(place)
    interval = Interval(estimate=0.75, low=0.55, high=0.95, resamples=1000)
    for config in (GENMIX, MIXUP):
        trial_id = compute(ledger, {**config, "affine": False, "classifier.learning_rate": 0.001})
        path = ledger.trial_folder(trial_id) / "state.json"
        write_json(path, {**read_json(path), "intervals": {"balanced_accuracy": asdict(interval)}})
    finish(ledger, best="t0000")
    return Ledger(ledger.folder)


def printed_address(server: subprocess.Popen[bytes], *, seconds: float = 120) -> str:
    assert server.stdout is not None
    deadline, told = time.monotonic() + seconds, b""
    while time.monotonic() < deadline:
        if select.select([server.stdout], [], [], 1)[0]:
            told += os.read(server.stdout.fileno(), 4096)
        if found := re.search(r"http://127\.0\.0\.1:\S+", told.decode()):
            return found[0]
        assert server.poll() is None, told.decode()
    raise TimeoutError(told.decode())


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Tab]:
    """A browser in which MLflow's assistant, which opens by itself at first and covers a quarter, is closed."""
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        tab.open(site.base, width=1400)
        for key, value in (("fab.autoOpenedOnFirstLoad", "true"), ("panelOpen", "false")):
            tab.evaluate(f"localStorage.setItem('mlflow.assistant.{key}_v1', '{value}')")
        yield tab


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("GENMIX_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shows(tab: Tab, address: str, *texts: str) -> None:
    """Open an address anew and wait until all of the texts are on the page."""
    tab.open("about:blank", width=1400)  # the page is one program, which keeps its state where only a hash changes
    tab.open(address, width=1400, height=1000)
    for text in texts:
        tab.wait_until(f"{_TEXT}.includes({json.dumps(text)})", seconds=90)


def test_the_printed_page_is_a_table_of_trials_with_scores_and_settings(tab: Tab, site: Site, pictures: Path) -> None:
    first, second = site.trials
    shows(tab, site.page, first.info.run_name, second.info.run_name, "balanced_accuracy_std")
    tab.screenshot(pictures / "runs.png", whole=False)
    text = tab.evaluate(_TEXT)
    assert text.index(first.info.run_name) < text.index(second.info.run_name), "the best trial comes first"
    assert site.search.info.run_name not in text
    assert "Model registry" in text and "Playground" not in text, "the look for training, not for language models"
    assert "0.9" in text.splitlines()
    assert not re.search(r"\.\d{7}", text), "a number has no more digits than a reader wants"
    for column in ("balanced_accuracy_low", "balanced_accuracy_high", "folds_done", "cost_seconds"):
        assert column in text


def test_the_chart_page_opens_on_parallel_coordinates_of_all_trials(tab: Tab, site: Site, pictures: Path) -> None:
    shows(tab, f"{site.page}&compareRunsMode=CHART", "Settings and scores", "Parallel Coordinates")
    tab.wait_until("document.querySelectorAll('svg').length > 20")
    for axis in ("mixer.name", "generator.name", "balanced_accuracy"):
        tab.wait_until(f"[...document.querySelectorAll('svg text')].some((each) => each.textContent === '{axis}')")
    tab.screenshot(pictures / "charts.png", whole=False)
    labels = tab.evaluate("[...document.querySelectorAll('svg text')].map((each) => each.textContent)")
    assert {"dcgan", "none", "genmix", "mixup"} <= set(labels), "trials without a generator are drawn as well"


def test_the_searchs_run_begins_with_its_note(tab: Tab, site: Site, pictures: Path) -> None:
    shows(tab, site.run_page(site.search), "Finished: 2 completed, of 2 wanted.", "Show more")
    tab.evaluate("[...document.querySelectorAll('button, a')].find((e) => e.innerText === 'Show more').click()")
    tab.wait_until(f"{_TEXT}.includes('How to reproduce')")
    tab.screenshot(pictures / "note.png", whole=False)
    text = tab.evaluate(_TEXT)
    for part in ("Best by balanced_accuracy: t0000 genmix dcgan", "Best trials", "95 % interval", "--seed 5"):
        assert part in text
    assert "&nbsp;" not in text
    cells = tab.evaluate("document.querySelectorAll('table td').length")
    assert cells >= 2 * 5 + 2 * len(site.trials[0].data.params) - 4, "the tables are tables"
    page = tab.evaluate("Math.max(...[...document.querySelectorAll('pre')].map((each) => each.scrollWidth))")
    assert page < 1100, "a long command would make the page wider than the window"


def test_the_compare_page_draws_parallel_coordinates_of_the_searchs_score(tab: Tab, site: Site, pictures: Path) -> None:
    ids = quote(json.dumps([run.info.run_id for run in site.trials]))
    experiments = quote(json.dumps([site.search.info.experiment_id]))
    shows(tab, f"{site.base}/#/compare-runs?runs={ids}&experiments={experiments}", "Parallel Coordinates Plot")
    tab.wait_until("document.querySelector('.parcoords, .js-plotly-plot') !== null")
    tab.wait_until(f"{_TEXT}.includes('Comparing 2 Runs') && document.querySelector('svg.main-svg') !== null")
    tab.screenshot(pictures / "compare.png", whole=False)
    axes = tab.evaluate("[...document.querySelectorAll('.axis-title')].map((each) => each.textContent)")
    assert "balanced_accuracy" in axes, "the score that the search is about, not another one"


@pytest.mark.parametrize(("of_search", "file"), [(False, names.SHEET_FILE), (True, "figures/score_by_trial.png")])
def test_an_artifact_image_is_there(tab: Tab, site: Site, pictures: Path, *, of_search: bool, file: str) -> None:
    run = site.search if of_search else site.trials[0]
    shows(tab, site.run_page(run, f"/artifacts/{file}"), Path(file).name)
    tab.wait_until("[...document.images].some((each) => each.complete && each.naturalWidth > 400)")
    tab.screenshot(pictures / f"artifact_{Path(file).name}", whole=False)


def test_the_report_is_read_within_mlflow(tab: Tab, site: Site, pictures: Path) -> None:
    shows(tab, site.run_page(site.search, f"/artifacts/{names.REPORT_FILE}"), names.REPORT_FILE)
    tab.wait_until("document.querySelector('iframe')?.src.startsWith('blob:') ?? false")
    time.sleep(2)  # what it shows is out of a script's reach; only the picture tells
    tab.screenshot(pictures / "report_in_mlflow.png", whole=False)
