"""A search's report: complete, self-contained, and safe whatever the record holds."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlflow_tracking.names import COMMANDS_FILE
from search.chosen_space import chosen_space
from search.report import write
from search.report.charts import Bars, Cells, Figure, Marks
from search.report.course import best_so_far, score_by_compute, spent_after
from search.report.curves import Pooled, reliability, roc
from search.report.facts import Facts, read_facts
from search.report.importance import FEWEST, PedAnova, importance
from search.report.maps import FEWEST_FOR_A_MODEL, alpha_by_ratio
from search.report.page import report_html
from search.report.parallel import parallel
from search.report.predicted import confusion, roc_curves
from search.report.shown import pictures
from search.report.timeline import shared_rows, timeline
from search.report.write import charts_of, try_report, write_report
from search.report_command import ReportWish, report
from search.settings import SettingsError
from spaces.budget import budget_named
from spaces.presets.genmix import GENMIX
from spaces.space import Assignment
from tests.mlflow_tracking.made_up import (
    GENMIX_DCGAN,
    GENMIX_EGAN,
    MIXUP,
    REAL,
    add_trial,
    fold_result,
    new_ledger,
    write_map,
    write_stages,
)
from trainables.data.source import Source
from trainables.files import read_json, write_json
from trainables.ledger import SHARED, Ledger
from trainables.metrics.interval import Interval
from trainables.results import FoldResult, Prediction, StageRecord

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "$\\frac{$ \"a\" & 'b' \u0394 %{x}")
"""Class names of a user who means no good, or who likes LaTeX."""
_ADDRESS = re.compile(r"url\(\s*['\"]?(?!data:)", re.IGNORECASE)


def predicted(fold: FoldResult, *, level: float = 0.7, classes: int = 3, only: int | None = None) -> FoldResult:
    """The fold with predictions that are right as often as its level says."""
    rng = np.random.default_rng([fold.fold, round(100 * level)])
    made = []
    for index in range(30):
        label = index % classes if only is None else only
        guess = label if rng.random() < level else int(rng.integers(classes))
        probabilities = rng.dirichlet(np.ones(classes)) * 0.5
        probabilities[guess] += 0.5
        patient = f"p{fold.fold}-{index // 2}"
        image = f"{patient}/{index}.png"
        made.append(Prediction(image=image, patient=patient, label=label, probabilities=tuple(probabilities)))
    return replace(fold, predictions=tuple(made))


def add_scored(
    ledger: Ledger,
    config: Assignment,
    *,
    level: float,
    reference: str | None = None,
    stages: tuple[StageRecord, ...] = (),
    only: int | None = None,
) -> str:
    """A completed trial with predictions and an interval."""
    trial_id = ledger.add_trial(config, reference=reference)
    classes = len(ledger.search().data.classes)
    for number in range(ledger.search().folds):
        made = fold_result(number, level=level, stages=stages if number == 0 else ())
        fold = replace(made, scores={**made.scores, "balanced_accuracy": level + 0.01 * (number - 1)})
        ledger.record_fold(trial_id, predicted(fold, level=level, classes=classes, only=only))
    interval = Interval(estimate=level, low=level - 0.06, high=level + 0.06, resamples=1000)
    ledger.end_trial(trial_id, "completed", intervals={"balanced_accuracy": interval})
    return trial_id


def fill(storage: Path) -> Ledger:
    """References, GenMix trials whose score rises with the ratio, one that failed, and stages to draw."""
    space, _ = chosen_space("genmix", (), budget_named("quick"))
    ledger = new_ledger(storage, space=space)
    stages = write_stages(storage, measured=True)
    for number, stage in enumerate(stages):
        path = storage / SHARED / "stages" / stage.name / stage.key / "stage.json"
        known = read_json(path) if path.exists() else {}
        write_json(path, {**known, "created": 1_700_000_100.0 + number, "host": "a", "device": "cpu"})
    add_scored(ledger, REAL, level=0.6, reference="none")
    add_scored(ledger, MIXUP, level=0.62, reference="mixup")
    for number in range(14):
        config = {**GENMIX_DCGAN, "mixer.genmix_alpha": 0.1 + 0.1 * number, "synthetic.ratio": 0.3 + 0.1 * number}
        config["mixer.partner"] = "pool"
        reused = tuple(replace(each, reused=number > 0) for each in stages)
        add_scored(ledger, config, level=0.6 + 0.015 * number, stages=reused)
    add_scored(ledger, GENMIX_EGAN, level=0.55)
    add_trial(ledger, REAL, folds=1, state="failed", error="DivergedError: <b>it fell apart</b>")
    write_map(ledger, "t0015")
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return fill(tmp_path / "storage")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A confirmed search with its report; not to be changed."""
    ledger = fill(tmp_path_factory.mktemp("written"))
    confirm(ledger)
    (ledger.folder / "figures").mkdir()
    (ledger.folder / "figures" / "of_an_earlier_report.png").touch()
    write_report(ledger)
    return ledger


def page(ledger: Ledger) -> str:
    """The report without figures, which are slow."""
    return report_html(read_facts(ledger), [], {})


def plain(html: str) -> str:
    """What a reader reads."""
    body = html[html.index("<main") : html.index("</main>")]
    return re.sub("<[^>]*>", "", re.sub("<script.*?</script>", "", body, flags=re.DOTALL))


def confirm(ledger: Ledger, *, searched_as: str = "t0015", sentence: str = "Verdict: t0015 is better.") -> None:
    """Write a confirmation's verdict."""
    interval = {"estimate": 0.78, "low": 0.7, "high": 0.85, "resamples": 1000}
    row = {
        "trial": "t0000", "searched_as": searched_as, "role": None, "policy": "genmix dcgan", "state": "completed",
        "score": {"mean": 0.78, "std": 0.01}, "interval": interval, "locked": {"mean": 0.7, "std": None},
        "locked_interval": interval, "searched": 0.81, "optimism": 0.03,
    }  # fmt: skip
    rows = [row, {**row, "role": "none", "searched_as": "t0000", "policy": "real", "locked_interval": None}]
    told = {"sentences": [sentence, "On the splits it is better."], "rows": rows, "confirmation": "confirm"}
    write_json(ledger.folder / "confirmation.json", told)


class _Links(HTMLParser):
    """Everything that a browser would load, and the elements that it would make."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.made: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.made.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.loaded.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def links(html: str) -> _Links:
    found = _Links()
    found.feed(html)
    return found


def figures(facts: Facts) -> dict[str, Figure]:
    return {figure.name: figure for figure in charts_of(facts)}


def marks(figure: Figure, label: str) -> Marks:
    return next(
        item for chart in figure.charts for item in chart.items if isinstance(item, Marks) and item.label == label
    )


def test_the_report_is_one_file_that_asks_the_network_for_nothing(written: Ledger) -> None:
    html = (written.folder / "report.html").read_text()
    found = links(html)
    assert found.loaded
    assert [each for each in found.loaded if not each.startswith(("data:image/png;base64,", "#"))] == []
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert not _ADDRESS.search(styles)
    assert "@import" not in styles
    assert "default-src 'none'" in unescape(html)
    assert html.count("plotly.js v") == 1
    assert {"link", "iframe", "object", "base"}.isdisjoint(found.made)


def test_it_opens_with_what_is_not_confirmed_and_the_command_that_confirms_it(ledger: Ledger) -> None:
    text = plain(page(ledger))
    opening = text[: text.index("Reproduce")]
    assert "Not confirmed. The best trial so far, t0015, has balanced accuracy 0.795 [0.735, 0.855]." in opening
    assert opening.count("python search/run.py confirm demo") == 1


def test_a_confirmed_search_opens_with_its_verdict_and_goes_on_in_order(written: Ledger) -> None:
    html = (written.folder / "report.html").read_text()
    body = html[html.index("<main") :]
    assert body.index("Verdict: t0015 is better.") < body.index("On the splits it is better.") < body.index("Reproduce")
    assert "Not confirmed" not in plain(html)
    assert "this verdict is that of" not in plain(html)
    assert body.index('id="figure-confirmed"') < body.index("Reproduce")
    parts = ("verdict", "reproduce", "leaderboard", "figures", "cautions")
    places = [body.index(f'<section id="{part}"') for part in parts]
    assert places == sorted(places)
    assert "Not for clinical use" in plain(html)
    assert "they show no patient" in plain(html)


def test_a_verdict_on_a_trial_that_is_no_longer_the_best_says_so(ledger: Ledger) -> None:
    confirm(ledger, searched_as="t0007")
    assert "its best trial is t0015 now, and this verdict is that of t0007" in plain(page(ledger))


def test_it_says_how_to_repeat_the_search(written: Ledger) -> None:
    text = plain((written.folder / "report.html").read_text())
    command = "--space genmix --budget quick --folds 3 --metric balanced_accuracy --sampler tpe --scheduler racing"
    assert command in text
    assert command in (written.folder / COMMANDS_FILE).read_text()
    assert "--seed 0 --trials 12 --cpus-per-trial 1 --name demo" in text
    assert "0123456789abcdef0123456789abcdef" in text
    assert "torch 2.13.0" in text


def test_a_narrowed_space_is_written_to_a_file_that_the_command_names(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path, space=GENMIX.fix("mixer.name", "genmix")[0])
    text = plain(write_report(ledger).read_text())
    path = ledger.folder / "space.yaml"
    assert f"--space {path}" in text
    assert path.read_text() == ledger.search().space.to_yaml()


def test_the_command_of_real_data_names_them(tmp_path: Path) -> None:
    source = Source(data="/data of mine", labels="more.csv", slice_rule="middle", skip_bad_images=True)
    ledger = new_ledger(tmp_path, source=source, further_metrics=("seconds",), sharing=False, max_copy_rate=0.1)
    ledger.write_search(replace(ledger.search(), data=replace(ledger.search().data, is_phantom=False)))
    command = read_facts(ledger).recipe.command
    assert "--data '/data of mine' --labels more.csv --slice middle --skip-bad-images --folds 3" in command
    assert "--metric balanced_accuracy,seconds" in command
    assert "--max-copy-rate 0.1 --no-sharing" in command


def test_every_figure_has_a_still_picture_and_a_caption(written: Ledger) -> None:
    paths = list((written.folder / "figures").glob("*.png"))
    assert {path.stem for path in paths} == {
        "confirmed", "score_by_trial", "score_by_compute", "scores_by_generator", "importance", "parallel_coordinates",
        "alpha_by_ratio", "roc", "calibration", "confusion", "timeline", "real_and_synthetic", "generator_training",
        "samples_over_training", "closest_pairs", "feature_map", "real_synthetic_mixed",
    }, "and none of an earlier report"  # fmt: skip
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 100
    for figure in charts_of(read_facts(written)):
        assert figure.caption.endswith(".")
        assert "could not be drawn" not in figure.caption
        for chart in figure.charts:
            assert chart.x.label or chart.x.ticks is not None
            assert chart.y.label or chart.y.ticks


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    data = replace(ledger.search().data, classes=HOSTILE, source="labels.csv of /tmp/<u>x</u>")
    ledger.write_search(replace(ledger.search(), data=data, metric=f"sensitivity_{HOSTILE[0]}"))
    for level in (0.6, 0.7):
        trial_id = ledger.add_trial(GENMIX_DCGAN, reference=None)
        for number in range(3):
            fold = fold_result(number, level=level)
            scores = {**fold.scores, f"sensitivity_{HOSTILE[0]}": level}
            ledger.record_fold(trial_id, predicted(replace(fold, scores=scores), level=level))
        ledger.end_trial(trial_id, "completed")
    add_trial(ledger, REAL, folds=0, state="failed", error=HOSTILE[1])
    html = write_report(ledger).read_text()
    found = links(html)
    assert found.handlers == []
    assert "u" not in found.made
    assert len(re.findall("<script", html[: html.index("<style>")] + html[html.index("<body") :])) == html.count(
        "</script>"
    )
    assert "alert(2)</script>" not in html
    assert [each for each in found.loaded if not each.startswith(("data:image/png;base64,", "#"))] == []
    for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL):
        assert "<img" not in str(json.loads(text)), "plotly.js reads HTML in texts"


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [{"folds": 0, "state": "unfinished"}],
        [{"folds": 3, "state": "completed"}],
        [{"folds": 1, "state": "failed", "error": "why"}] * 2,
        [{"folds": 2, "state": "pruned", "error": "slow"}],
        [{"folds": 3, "state": "completed", "level": 0.7}] * 12,
    ],
    ids=["no trial", "one running", "one completed", "all failed", "one pruned", "all the same"],
)
@pytest.mark.parametrize("config", [REAL, GENMIX_DCGAN], ids=["no generator", "generator"])
def test_a_record_with_little_in_it_gives_sentences_in_place_of_figures(
    tmp_path: Path, trials: list[dict[str, object]], config: Assignment
) -> None:
    ledger = new_ledger(tmp_path, further_metrics=("accuracy",))
    for given in trials:
        add_trial(ledger, config, **given)  # type: ignore[arg-type]
    facts = read_facts(ledger)
    found = [write._MAKERS[index](facts) for index in range(len(write._MAKERS))]
    assert all(figure.caption for figure in found)
    assert "Not shown" in report_html(facts, found, {})


def test_a_class_that_nobody_predicted_gives_no_roc_curve_but_a_sentence(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_scored(ledger, REAL, level=0.7, only=1)
    facts = read_facts(ledger)
    assert roc_curves(facts).is_empty
    assert "undefined" in roc_curves(facts).caption
    cells = confusion(facts).charts[0].items[0]
    assert isinstance(cells, Cells)
    assert cells.values[0] == (None, None, None), "no image of this class"


def test_the_best_so_far_ignores_trials_that_copy_too_much(ledger: Ledger) -> None:
    ledger.write_search(replace(ledger.search(), max_copy_rate=0.01))
    add_trial(ledger, GENMIX_DCGAN, level=0.95, measured=True)
    facts = read_facts(ledger)
    best = [value for _, value in best_so_far(facts)]
    assert best == sorted(best)
    assert best[-1] < 0.9
    assert len(marks(score_by_compute(facts), "copies too much").x) == 1


def test_computation_counts_what_trials_took_themselves(ledger: Ledger) -> None:
    spent = spent_after(read_facts(ledger).ended)
    assert list(spent.values()) == sorted(spent.values())
    assert spent["t0000"] == pytest.approx(12.5 + 13.5 + 14.5)


def test_importance_finds_the_setting_that_decides_and_measures_chance(ledger: Ledger) -> None:
    facts = read_facts(ledger)
    trials = [trial for trial in facts.completed if facts.record.space.contains(trial.config)]
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(60):
        config = {**GENMIX_DCGAN, "synthetic.ratio": float(rng.uniform(0.25, 2)), "affine": bool(rng.integers(2))}
        config["mixer.partner"] = "pool"
        drawn.append(replace(trials[0], id=f"t{number:04d}", config=config))
    costs = [abs(float(trial.config["synthetic.ratio"]) - 1.0) for trial in drawn]
    anova = PedAnova(GENMIX, drawn)
    found, chance = anova.of(costs), anova.by_chance(costs, seed=0)
    assert max(found, key=lambda name: found[name]) == "synthetic.ratio"
    assert found["synthetic.ratio"] > 3 * chance["synthetic.ratio"]
    assert found["affine"] < 0.2 * found["synthetic.ratio"]
    few = replace(facts, trials=facts.trials[: FEWEST - 1])
    assert importance(few).is_empty
    assert "too few" in importance(few).caption


def test_maps_are_modelled_where_there_are_trials_enough_and_say_what_is_unknown(ledger: Ledger) -> None:
    figure = alpha_by_ratio(read_facts(ledger))
    (chart,) = figure.charts
    (cells,) = chart.items
    assert isinstance(cells, Cells)
    assert "Gaussian process" in figure.caption
    assert FEWEST_FOR_A_MODEL <= 14
    values = np.array([[np.nan if value is None else value for value in row] for row in cells.values])
    assert values[0, 0] < values[-1, -1], "the score rises along the diagonal"
    assert "egan" in figure.caption


def test_many_trials_at_one_place_are_no_map_of_other_places(ledger: Ledger) -> None:
    facts = read_facts(ledger)
    same = [replace(trial, config=facts.trials[2 + index % 3].config) for index, trial in enumerate(facts.trials[2:16])]
    figure = alpha_by_ratio(replace(facts, trials=tuple(same)))
    (cells,) = figure.charts[0].items
    assert isinstance(cells, Cells)
    assert "Gaussian process" not in figure.caption
    assert sum(value is not None for row in cells.values for value in row) == 3


def test_a_setting_that_a_trial_lacks_stands_at_the_edge_of_its_row(ledger: Ledger) -> None:
    figure = parallel(read_facts(ledger))
    (chart,) = figure.charts
    rows = [text.replace("\n", ".") for _, text in chart.y.ticks or ()]
    assert {"mixer.genmix_alpha", "synthetic.ratio", "balanced accuracy"} <= set(rows)
    real = [
        (x, y)
        for item in chart.items
        if isinstance(item, Marks)
        for x, y, said in zip(item.x, item.y, item.hover, strict=True)
        if "t0000:" in said and said.startswith("synthetic.ratio")
    ]
    assert [x < 0 for x, _ in real] == [True]


def test_the_timeline_tells_who_trained_and_who_reused(ledger: Ledger) -> None:
    facts = read_facts(ledger)
    head, *rows = shared_rows(facts)
    assert head[1] == "trained by"
    assert rows[0][:2] == ("dcgan, fold 0", "t0002")
    assert rows[0][3:] == ("t0003, t0004, t0005, t0006 and 9 more", "13.0 s")
    bars = [item for item in timeline(facts).charts[0].items if isinstance(item, Bars)]
    assert {y for item in bars for y in item.y} == {2.0}, "one trial computed stages, the third"
    assert len(set(marks(timeline(facts), "generator found ready").y)) == 13
    assert "not on record any more" in timeline(replace(facts, computed={})).caption


def test_roc_and_reliability_agree_with_what_is_known_of_them() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    perfect = np.stack([1.0 - labels, labels * 1.0], axis=1)
    patients = tuple(f"p{index // 2}" for index in range(100))
    curve = roc(Pooled(labels_N=labels, probabilities_NK=perfect, patients=patients), positive=1, seed=0)
    assert curve is not None
    assert curve.y.min() == curve.low.min() == 1.0
    rng = np.random.default_rng(0)
    guessed = rng.random(100)
    noise = Pooled(labels_N=labels, probabilities_NK=np.stack([1 - guessed, guessed], axis=1), patients=patients)
    curve = roc(noise, positive=1, seed=0)
    assert curve is not None
    assert abs(float(np.trapezoid(curve.y, curve.x)) - 0.5) < 0.15
    assert (curve.low <= curve.y + 1e-9).all()
    assert (curve.high >= curve.y - 1e-9).all()
    said, counts = reliability(noise, seed=0)
    assert counts.sum() == 100
    assert said.x.min() >= 0.5


def test_a_report_that_fails_says_why_and_fails_nothing_else(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("a bug\nin two lines")

    monkeypatch.setattr(write, "read_facts", broken)
    assert try_report(ledger) == "RuntimeError: a bug in two lines"


def test_a_figure_that_cannot_be_drawn_leaves_the_others(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(facts: Facts) -> Figure:
        raise ValueError("no such luck")

    monkeypatch.setattr(write, "_MAKERS", (broken, score_by_compute))
    first, second = charts_of(read_facts(ledger))
    assert "no such luck" in first.caption
    assert second.charts


def test_images_stay_out_where_the_search_shows_none(ledger: Ledger) -> None:
    ledger.write_search(replace(ledger.search(), show_images=False))
    found = pictures(read_facts(ledger), ledger)
    assert {each.name for figure in found for each in figure.pictures} == {"generator_training", "feature_map"}
    assert any("--no-images" in figure.caption for figure in found)


def test_the_command_rebuilds_a_report_and_puts_searches_side_by_side(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = new_ledger(ledger.storage, "other", seed=7, metric="accuracy")
    add_scored(other, REAL, level=0.5)
    assert report(ReportWish(storage=ledger.storage, name="other")) == 0
    assert (other.folder / "report.html").exists()
    out = tmp_path / "both.html"
    assert report(ReportWish(storage=ledger.storage, compare=("demo", "other"), out=out)) == 0
    assert str(out) in capsys.readouterr().out
    html = out.read_text()
    plain = re.sub("<[^>]*>", "|", html[html.index("<main") :])
    assert "differ in their metric and splits" in re.sub("<[^>]*>", "", html)
    assert "|seed||0||7|" in plain.replace("\n", "")
    assert "|budget|" not in plain, "that is the same"
    assert links(html).loaded
    with pytest.raises(SettingsError, match="alone"):
        report(ReportWish(storage=ledger.storage, compare=("demo",)))
    with pytest.raises(SettingsError, match="no search 'demi'"):
        report(ReportWish(storage=ledger.storage, compare=("demo", "demi")))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A search whose report has no figures."""
    monkeypatch.setattr(write, "_MAKERS", ())
    return new_ledger(tmp_path / "storage")


@pytest.mark.parametrize("compare", [(), ("demo", "other")], ids=["report", "comparison"])
def test_a_report_goes_where_a_link_leads_to(small: Ledger, tmp_path: Path, compare: tuple[str, ...]) -> None:
    new_ledger(small.storage, "other")
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "there" / "report")
    for _ in range(2):
        assert report(ReportWish(storage=small.storage, name="demo", compare=compare, out=link)) == 0
        assert link.is_symlink()
        assert "</html>" in (tmp_path / "there" / "report").read_text()


@pytest.mark.parametrize("compare", [(), ("demo", "other")], ids=["report", "comparison"])
def test_a_report_goes_into_a_pipe_which_stays_one(small: Ledger, tmp_path: Path, compare: tuple[str, ...]) -> None:
    new_ledger(small.storage, "other")
    pipe, found = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()
    assert report(ReportWish(storage=small.storage, name="demo", compare=compare, out=pipe)) == 0
    assert pipe.is_fifo()
    reader.join(10)
    assert "</html>" in found[0]


@pytest.mark.parametrize("compare", [(), ("demo", "other")], ids=["report", "comparison"])
def test_a_report_takes_no_records_place(small: Ledger, tmp_path: Path, compare: tuple[str, ...]) -> None:
    new_ledger(small.storage, "other")
    record, link = small.folder / "search.json", tmp_path / "link.html"
    before = record.read_bytes()
    link.symlink_to(record)
    for out in (record, link):
        with pytest.raises(
            SettingsError, match=rf"--out '{out}' would take the place of .*search\.json.*name .*\.html"
        ):
            report(ReportWish(storage=small.storage, name="demo", compare=compare, out=out))
    assert record.read_bytes() == before
    for name in ("mine.html", "new"):
        for _ in range(2 if name.endswith(".html") else 1):
            assert report(ReportWish(storage=small.storage, name="demo", out=small.folder / name)) == 0


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_drawn(
    small: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "read_facts", None)
    for out, wrong in ((tmp_path, "is a folder"), (tmp_path / "none" / "a.html", "which does not exist")):
        with pytest.raises(SettingsError, match=rf"--out '{out}' .*{wrong}; name .*\.html"):
            report(ReportWish(storage=small.storage, out=out))
