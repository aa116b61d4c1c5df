"""The subcommand ``refit``: a model on disk and in MLflow's registry, loaded anywhere with the same probabilities."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.entities.model_registry import ModelVersion
from rich.console import Console

from mlflow_tracking import names
from mlflow_tracking.connect import TrackingError, TrackingOutage, check_server, client_for
from mlflow_tracking.models import fetch, register
from mlflow_tracking.projector import Projector
from search import refit_command
from search.predict_command import PredictWish, predict_images
from search.refit_command import refit, refit_trial
from search.refit_flags import refit_parser
from search.settings import SettingsError
from tests.search.tiny_search import CLASSES, NAME, moved
from trainables.data.cohort import Cohort
from trainables.data.preprocess import preprocess
from trainables.ledger import IMAGES, SHARED, Ledger
from trainables.model_folder import MODEL, load_model

CPU = torch.device("cpu")
LOAD = """
import json, sys
import mlflow, pandas, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny/1")
import trainables
by_path = model.predict(pandas.DataFrame({"path": sys.argv[2:]}))
images = numpy.load("images.npy")
by_pixels = model.predict(pandas.DataFrame({"pixels": list(images)}))
by_array = model.unwrap_python_model().predict(None, images)
tables = [json.loads(each.to_json(orient="split", double_precision=15)) for each in (by_path, by_pixels, by_array)]
print(json.dumps({"tables": tables, "code": trainables.__file__}))
"""


@pytest.fixture(scope="module")
def registered(computed_search: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """The tiny search with its runs in MLflow, refitted."""
    place = tmp_path_factory.mktemp("registered")
    shutil.copytree(computed_search.storage, place / "searches")
    search = moved(computed_search, place)
    with warnings.catch_warnings():  # the tracker's own use of its database library
        warnings.simplefilter("ignore", DeprecationWarning)
        check_server(search.search().tracking_uri)
        Projector(search, search.search().tracking_uri).close(interrupted=False)
    assert refit(search.storage, NAME, None) == 0
    return search


def versions_of(search: Ledger) -> list[ModelVersion]:
    return list(client_for(search.search().tracking_uri).search_model_versions(f"name = '{NAME}'"))


def logged(search: Ledger) -> list[str]:
    client = client_for(search.search().tracking_uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    return [each.model_id for each in client.search_logged_models(experiments)]


@pytest.mark.integration
def test_the_winner_is_registered_once_under_the_searchs_name_and_says_what_it_is_not_for(registered: Ledger) -> None:
    (version,) = versions_of(registered)
    assert (version.version, version.tags[names.CLINICAL_USE], version.tags[names.TRIAL]) == (1, "no", "t0000")
    assert "not for clinical use" in version.description
    client = client_for(registered.search().tracking_uri)
    assert client.get_run(version.run_id).data.tags[names.KIND] == names.KIND_SEARCH
    assert refit(registered.storage, NAME, None) == 0
    assert len(versions_of(registered)) == len(logged(registered)) == 1


@pytest.mark.integration
def test_another_trials_model_is_kept_beside_it_and_not_registered(registered: Ledger) -> None:
    before = (registered.folder / MODEL / "model.json").read_bytes()
    assert refit(registered.storage, NAME, "t0001") == 0
    assert load_model(registered.folder / "model-t0001", CPU).trial == "t0001"
    assert (registered.folder / MODEL / "model.json").read_bytes() == before
    assert len(versions_of(registered)) == len(logged(registered)) == 1


@pytest.mark.integration
def test_a_fresh_process_loads_the_registered_model_and_gets_the_trial_cores_probabilities(
    registered: Ledger, tmp_path: Path
) -> None:
    record = registered.search()
    cohort = Cohort.load(registered.storage / SHARED / IMAGES / record.data.digest)
    model = load_model(registered.folder / MODEL, CPU)
    images = preprocess(cohort, range(len(cohort)), model.scaling, model.preprocess)
    expected_NK = model.classifier.probabilities(images.images_NCHW).numpy()
    assert record.source is not None
    (tmp_path / "torn.mha").write_bytes(b"torn")
    np.save(tmp_path / "images.npy", images.images_NCHW[:, 0].numpy() * 50 + 100)
    paths = [str(Path(record.source.data) / name) for name in images.ids]
    command = [sys.executable, "-W", "ignore", "-c", LOAD, record.tracking_uri, *paths, str(tmp_path / "torn.mha")]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    by_path, by_pixels, by_array = told["tables"]
    assert by_path["columns"] == [f"probability_{CLASSES[0]}", f"probability_{CLASSES[1]}", "prediction", "error"]
    *good, torn = by_path["data"]
    np.testing.assert_allclose(np.array([row[:2] for row in good], dtype=float), expected_NK, atol=1e-6)
    assert [row[2] for row in good] == [CLASSES[index] for index in expected_NK.argmax(axis=1)]
    assert torn[:3] == [None, None, ""]
    assert "cut off" in torn[3]
    assert by_pixels == by_array
    assert not Path(told["code"]).is_relative_to(Path(__file__).parents[2]), "it carries the code that reads it"


@pytest.mark.integration
def test_what_is_logged_holds_no_pickle_and_predict_runs_none_of_its_code(registered: Ledger, tmp_path: Path) -> None:
    record = registered.search()
    (served,) = (path for path in record_artifacts(registered).rglob("served_model.py") if path.is_file())
    files = [path for path in served.parent.rglob("*") if path.is_file()]
    assert {"classifier.safetensors", "model.json", "MLmodel"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pyc")]
    assert "cloudpickle" not in (served.parent / "python_env.yaml").read_text()
    before = served.read_text()
    try:
        served.write_text("raise SystemExit('code of the model was run')")
        assert record.source is not None
        wish = PredictWish(
            model="models:/tiny/1",
            images=[Path(record.source.data)],
            out=str(tmp_path / "by_registry.csv"),
            slice_rule=None,
            storage=tmp_path / "nowhere",
            tracking_uri=record.tracking_uri,
        )
        assert predict_images(wish) == 0
    finally:
        served.write_text(before)
    by_name = replace(wish, model=NAME, storage=registered.storage, out=str(tmp_path / "by_name.csv"))
    assert predict_images(by_name) == 0
    assert (tmp_path / "by_registry.csv").read_text() == (tmp_path / "by_name.csv").read_text()


def record_artifacts(search: Ledger) -> Path:
    return search.storage.parent / "mlartifacts"


@pytest.mark.integration
def test_what_mlflow_does_not_have_is_said_in_a_sentence(registered: Ledger, tmp_path: Path) -> None:
    uri = registered.search().tracking_uri
    for address in ("models:/tinny/1", "models:/tiny/7", "runs:/0123456789abcdef/model"):
        with pytest.raises(TrackingError, match=f"The model '{address}' cannot be had from 'sqlite:.*--tracking-uri"):
            fetch(address, uri, tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://bucket/x", "install it: pip install boto3"),
        ("http://127.0.0.1:1/x", "it is no address of artifacts"),
        ("http://me:secret@[::1", "it is no address of artifacts"),
    ],
)
def test_an_address_of_no_model_or_without_its_driver_is_refused_in_a_sentence(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("boto3", "botocore"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(TrackingError, match=re.escape(said)) as caught:
        fetch(address, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_of_the_artifact_store_leaves_the_model_on_disk_and_says_what_to_install(
    tiny_search: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    monkeypatch.setattr("mlflow_tracking.models.read_card", lambda _: {})
    monkeypatch.setattr("mlflow_tracking.models.open_remote", missing)
    with pytest.raises(TrackingOutage, match=r"^No module named 'boto3'; install it: pip install boto3$"):
        register(tiny_search.search(), tmp_path)


@pytest.mark.integration
def test_a_model_waits_on_disk_until_its_search_is_in_mlflow(registered: Ledger, tmp_path: Path) -> None:
    shutil.copytree(registered.storage, tmp_path / "searches")
    search = Ledger(tmp_path / "searches" / NAME)
    search.write_search(replace(registered.search(), created=1.0))
    with pytest.raises(TrackingError, match=r"The model is in .*model, and was not registered: .*sync tiny --storage"):
        refit(search.storage, NAME, None)
    assert load_model(search.folder / MODEL, CPU).trial == "t0000"


def test_a_search_without_a_best_trial_and_an_unknown_trial_are_refused(tiny_search: Ledger) -> None:
    with pytest.raises(SettingsError, match=r"--trial 't0009' is no trial of 'tiny'; .*t0001"):
        refit(tiny_search.storage, NAME, "t0009")
    for trial_id in tiny_search.trial_ids():
        (tiny_search.trial_folder(trial_id) / "state.json").unlink()
    with pytest.raises(
        SettingsError,
        match=r"name a trial with --trial, or go on with it by: .* --resume tiny --storage ",
    ):
        refit(tiny_search.storage, NAME, None)
    assert refit_parser().parse_args(["tiny", "--trial", "t1"]).trial == "t1"


def test_it_is_said_where_little_is_known_of_a_model(tiny_search: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: object) -> bool:
        raise refit_command.Stopped(130)

    monkeypatch.setattr(refit_command, "train", stop)
    trial, printed = tiny_search.trial("t0000"), Console(record=True, width=200)
    assert refit_trial(tiny_search, trial, printed) == 130
    assert refit_trial(tiny_search, replace(trial, folds=trial.folds[:1]), printed) == 130
    said = printed.export_text()
    assert said.count("scored, so that little is known of its model") == 1
    assert "t0000 has only 1 of" in said
