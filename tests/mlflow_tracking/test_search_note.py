"""What a person reads first: the note of a search's run, and the report and figures among its artifacts."""

from __future__ import annotations

import shlex
from pathlib import Path

from mlflow_tracking import names, notes
from mlflow_tracking.connect import client_for
from mlflow_tracking.projector import Projector
from tests.mlflow_tracking.made_up import (
    GENMIX_DCGAN,
    MIXUP,
    REAL,
    add_trial,
    confirmation,
    new_ledger,
    search_record,
)
from trainables.files import write_json
from trainables.ledger import Ledger
from trainables.results import StageRecord

COMMANDS = "python search/run.py --space genmix\n\npython search/run.py --config best.yaml"
VERDICT = ("Verdict: t0001 is better than no augmentation.", "On the splits by +0.031.")


def told(ledger: Ledger, **changes: object) -> str:
    return notes.search_note(ledger.search(), ledger.trials(), state="finished", **changes)  # type: ignore[arg-type]


def test_the_note_says_which_policy_how_sure_at_what_cost_and_how_to_repeat_it(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, REAL, reference="none", level=0.6)
    reused = (StageRecord(name="generator", key="k", seconds=100.0, reused=True),)
    add_trial(ledger, GENMIX_DCGAN, level=0.8, stages=reused)
    note = told(ledger, verdict=VERDICT, commands=COMMANDS)
    order = [
        "**Finished: 2 completed, of 12 wanted.**", f"**{VERDICT[0]}**", f"- {VERDICT[1]}", "Demonstration",
        "**t0001 genmix dcgan**, 0.8", "| mixer.genmix_alpha&nbsp;&nbsp; | 0.3123&nbsp;", "### Best trials",
        "| 1&nbsp;&nbsp; | t0001", "| 2&nbsp;&nbsp; | t0000 reference none&nbsp;&nbsp; | 0.5",
        "Computed in all trials: 81 s; 5 min more", "3 stages that were reused",
        "### How to reproduce", "--config best.yaml", "Data digest 0123456789abcdef", "torch 2.13.0", "report.html",
    ]  # fmt: skip
    places = [note.index(each) for each in order]
    assert places == sorted(places)
    assert "Not confirmed" not in note


def test_the_note_of_an_unconfirmed_search_says_that_its_score_is_optimistic(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, REAL, level=0.6)
    note = told(ledger)
    assert "Not confirmed: it was chosen on the folds that it is scored on" in note
    assert "reproduce" not in note, "no report has been written"


def test_a_note_stays_within_what_a_tag_takes_and_loses_its_end_first(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    for _ in range(12):
        add_trial(ledger, {**REAL, "classifier.name": "x|y" + "z" * 2000})
    note = told(ledger, verdict=VERDICT, commands="c" * 4000)
    assert len(note) <= names.MAX_TAG
    assert note.startswith("**Finished: 12 completed")
    assert "### Best trials" in note
    assert "cccc" not in note
    assert "| classifier.name&nbsp;&nbsp; | x\\|yzz" in note, "a bar would end the cell"


def test_a_long_command_is_folded_where_an_option_begins_and_stays_the_same_to_a_shell(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, REAL)
    command = "python search/run.py --space genmix --data '/images of --all kinds/x' --folds 3 --metric auroc --name a"
    note = told(ledger, commands=f"{command}\n\npython search/run.py --config best.yaml")
    block = note.partition("```\n")[2].partition("\n```")[0]
    assert max(map(len, block.splitlines())) < 90
    first, last = block.split("\n\n")
    assert "\\\n" in first
    assert shlex.split(first.replace("\\\n", "")) == shlex.split(command)
    assert last == "python search/run.py --config best.yaml"


def test_what_is_best_so_far_is_best_once_the_search_has_ended(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, REAL)
    assert "Best by balanced_accuracy" in told(ledger)
    assert "Best so far by" in notes.search_note(ledger.search(), ledger.trials(), state=notes.INTERRUPTED)


def test_the_cost_is_told_at_the_end_as_it_would_change_the_note_with_every_fold(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path)
    add_trial(ledger, MIXUP, folds=1, state="unfinished")
    assert "Computed" not in notes.search_note(search_record(), ledger.trials(), state=notes.RUNNING)
    assert "Computed in all trials: 12 s." in told(ledger)


def test_report_and_figures_become_artifacts_of_the_searchs_run(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    add_trial(ledger, REAL)
    (ledger.folder / names.REPORT_FILE).write_text("<p>a report</p>")
    (ledger.folder / names.FIGURES_FOLDER).mkdir()
    (ledger.folder / names.FIGURES_FOLDER / "roc.png").write_bytes(b"png")
    (ledger.folder / names.COMMANDS_FILE).write_text(COMMANDS)
    Projector(ledger, uri).close(interrupted=False)
    client = client_for(uri)
    (run,) = client.search_runs(["1"], filter_string=f"tags.`{names.KIND}` = '{names.KIND_SEARCH}'")
    assert "report.html" in [each.path for each in client.list_artifacts(run.info.run_id)]
    assert [each.path for each in client.list_artifacts(run.info.run_id, "figures")] == ["figures/roc.png"]
    assert "--config best.yaml" in run.data.tags[names.NOTE]


def test_a_confirmation_brings_its_verdict_into_the_note_of_the_search(tmp_path: Path, uri: str) -> None:
    ledger = new_ledger(tmp_path / "runs")
    add_trial(ledger, REAL)
    add_trial(ledger, GENMIX_DCGAN)
    Projector(ledger, uri).close(interrupted=False)
    confirmed = confirmation(ledger)
    write_json(ledger.folder / names.CONFIRMATION_FILE, {"sentences": list(VERDICT)})
    Projector(confirmed, uri, kind=names.KIND_CONFIRM).close(interrupted=False)
    (run,) = client_for(uri).search_runs(["1"], filter_string=f"tags.`{names.KIND}` = '{names.KIND_SEARCH}'")
    note = run.data.tags[names.NOTE]
    assert note.startswith("**Finished: 2 completed, of 12 wanted.**")
    assert f"**{VERDICT[0]}**" in note
