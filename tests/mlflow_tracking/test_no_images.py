"""Under ``--no-images`` nothing that shows a patient, or may be a copy of one, reaches the tracking server."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_tracking import names
from mlflow_tracking.connect import client_for
from mlflow_tracking.projector import Projector
from tests.mlflow_tracking.made_up import (
    GENMIX_EGAN,
    REAL,
    add_trial,
    confirmation,
    new_ledger,
    write_map,
    write_stages,
)
from trainables.files import write_json
from trainables.ledger import Ledger

SCORES = {names.CURVES_FILE, names.MAP_FILE, "result.json"}
IMAGES = {names.SHEET_FILE, names.SAMPLES_FILE, names.PAIRS_FILE, names.MIXED_FILE}


def artifacts(uri: str) -> set[str]:
    """The names of all files of all runs on the server."""
    client = client_for(uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return {file.path for run in runs for file in client.list_artifacts(run.info.run_id)}


def with_everything(storage: Path, *, show_images: bool) -> Ledger:
    ledger = new_ledger(storage, show_images=show_images)
    stages = write_stages(storage, measured=True)
    for config in (GENMIX_EGAN, REAL):
        write_map(ledger, add_trial(ledger, config, stages=stages, measured=True))
    write_json(ledger.folder / "result.json", {})
    return ledger


@pytest.mark.parametrize("show_images", [True, False])
def test_images_reach_the_server_only_if_they_may(tmp_path: Path, uri: str, show_images: bool) -> None:
    ledger = with_everything(tmp_path / "runs", show_images=show_images)
    again = confirmation(ledger)
    write_map(again, "t0000")
    for projector in (Projector(ledger, uri), Projector(again, uri, kind=names.KIND_CONFIRM)):
        projector.close(interrupted=False)
        assert projector.sync() == 0
    assert artifacts(uri) == (SCORES | IMAGES if show_images else SCORES)
    stored = {path.name for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()}
    assert stored == artifacts(uri)
    notes = [run.data.tags.get(names.NOTE, "") for run in client_for(uri).search_runs(["1"])]
    assert any("--no-images" in note for note in notes) is not show_images


def test_a_confirmation_cannot_show_what_its_search_keeps_out(tmp_path: Path, uri: str) -> None:
    ledger = with_everything(tmp_path / "runs", show_images=True)
    again = confirmation(ledger)
    write_map(again, "t0000")
    record = ledger.search().to_dict()
    write_json(ledger.folder / "search.json", {**record, "show_images": False})
    Projector(again, uri, kind=names.KIND_CONFIRM).sync()
    assert names.MAP_FILE in artifacts(uri)
    assert not artifacts(uri) & IMAGES
