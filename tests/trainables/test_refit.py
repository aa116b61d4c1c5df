"""The refit learns from every image of its search, once, and leaves a model that can be used anywhere."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spaces.config import TrialConfig
from spaces.protocol import Protocol
from trainables.classifiers.training import train_classifier
from trainables.data import affine
from trainables.data.preprocess import fit_scaling, preprocess
from trainables.environment import Environment
from trainables.errors import DataError, StopRequested
from trainables.files import read_json, write_json
from trainables.mixers.mixup import Mixup
from trainables.mixers.registry import build
from trainables.model_folder import CARD, WEIGHTS, load_model, put_back, read_card, write_model
from trainables.refit import refit, refit_stages
from trainables.seeding import stream
from trainables.stages import StageStore

Build = Callable[..., TrialConfig]
CPU = torch.device("cpu")
ABOUT = {"name": "s", "trial": "t0003"}


def refitted(
    config: TrialConfig, environment: Environment, folder: Path, *, protocol: Protocol | None = None, **more: Any
) -> bool:
    about = {**ABOUT, **more}
    return refit(
        config, protocol or Protocol(folds=3), environment, folder=folder, about=about, versions={"torch": "2"}
    )


def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def test_it_is_the_training_of_a_fold_on_all_images_under_streams_of_its_own(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    config = tiny_trial(mixer__name="mixup", affine=True)
    assert isinstance(build(config.mixer), Mixup)
    assert refitted(config, environment, tmp_path / "model")
    everything = range(len(environment.cohort))
    scaling = fit_scaling(environment.cohort, everything, config.preprocess)
    real = preprocess(environment.cohort, everything, scaling, config.preprocess)
    expected = train_classifier(
        config.classifier,
        build(config.mixer),
        real,
        None,
        augment=affine.affine,
        balanced=False,
        seed=stream(environment.seed, "refit/classifier"),
        device=CPU,
        on_step=lambda done, total: None,
    )
    stored = load_file(tmp_path / "model" / WEIGHTS)
    assert stored.keys() == expected.state().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in expected.state().items())
    model = load_model(tmp_path / "model", CPU)
    assert model.scaling == scaling
    assert torch.equal(model.classifier.probabilities(real.images_NCHW), expected.probabilities(real.images_NCHW))
    assert model.seen == {entry.pixel_digest for entry in environment.cohort.entries}


def test_a_model_says_what_it_is_and_that_it_is_not_for_clinical_use(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    config = tiny_trial(mixer__name="genmix", generator__name="dcgan", synthetic__ratio=0.5)
    refitted(config, environment, tmp_path / "model")
    card = read_json(tmp_path / "model" / CARD)
    assert "not for clinical use" in card["warning"]
    assert card["classes"] == ["bright", "dark"]
    assert card["positive"] == "bright"
    assert card["training"]["images"] == {"bright": 12, "dark": 12}
    assert card["training"]["synthetic"] == {"bright": 6, "dark": 6}
    assert (card["training"]["patients"], card["training"]["seed"]) == (12, 3)
    assert card["settings"]["generator"]["name"] == "dcgan"
    assert card["data"]["digest"] == environment.cohort.digest
    assert 0 <= card["training"]["fidelity"]["copy_rate"] <= 1
    assert "p1" not in str(card), "names of patients stay where the data are"
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [WEIGHTS, CARD]


def test_a_model_that_is_there_is_not_trained_again_but_told_what_is_new_of_its_search(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    folder, config = tmp_path / "model", tiny_trial(mixer__name="genmix", generator__name="dcgan")
    assert refitted(config, environment, folder)
    before = weights(folder)

    def refuse(stage: str, done: int, total: int) -> None:
        raise AssertionError(f"{stage} was asked for")

    idle = replace(environment, store=StageStore(tmp_path / "empty"), report=refuse)
    assert not refitted(config, idle, folder, verdict=["better"])
    assert (weights(folder), read_json(folder / CARD)["search"]["verdict"]) == (before, ["better"])


@pytest.mark.parametrize("change", ["other policy", "damaged"])
def test_another_or_a_damaged_model_is_replaced(
    environment: Environment, tiny_trial: Build, tmp_path: Path, change: str
) -> None:
    folder, config = tmp_path / "model", tiny_trial()
    refitted(config, environment, folder)
    before = weights(folder)
    if change == "damaged":
        (folder / WEIGHTS).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    else:
        config = tiny_trial(affine=True)
    assert refitted(config, environment, folder)
    assert (weights(folder) == before) is (change == "damaged")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".model", "model"))) == ["model"]


@pytest.fixture
def model(environment: Environment, tiny_trial: Build, tmp_path: Path) -> Path:
    """A model, beside what a killed writer of another one has left."""
    refitted(tiny_trial(), environment, tmp_path / "model")
    refitted(tiny_trial(), environment, tmp_path / ".model-t0001-0123abcd-before")
    return tmp_path / "model"


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".model-*"))


def test_a_model_whose_replacement_was_killed_between_its_two_renames_is_found_again(model: Path) -> None:
    whole = load_model(model, CPU)
    model.rename(model.with_name(".model-0123abcd-before"))
    assert load_model(model, CPU).key == whole.key
    assert hidden(model.parent) == [".model-t0001-0123abcd-before"]


def test_writing_a_model_removes_what_killed_writers_left_of_it_alone(model: Path) -> None:
    shutil.copytree(model, model.with_name(".model-0123abcd-before"))
    (model.with_name(".model-89abcdef")).mkdir()
    write_model(model, load_file(model / WEIGHTS), {**read_card(model), "search": {"name": "new"}})
    assert read_card(model)["search"] == {"name": "new"}
    assert hidden(model.parent) == [".model-t0001-0123abcd-before"]


def test_a_reader_between_the_two_renames_does_not_stop_the_writer(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, readers = Path.rename, [put_back]

    def rename_while_reading(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if path == model and readers:
            readers.pop()(model)
            assert model.exists()
        return moved

    monkeypatch.setattr(Path, "rename", rename_while_reading)
    write_model(model, load_file(model / WEIGHTS), {**read_card(model), "search": {"name": "new"}})
    assert not readers
    assert read_card(model)["search"] == {"name": "new"}
    assert hidden(model.parent) == [".model-t0001-0123abcd-before"]


def test_a_refit_that_is_stopped_goes_on_to_the_same_bytes(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    config = tiny_trial(classifier__epochs=4)
    seen: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "classifier" and done:
            seen.append(done)
            if len(seen) == 7:
                raise StopRequested

    here = replace(environment, report=stop)
    with pytest.raises(StopRequested):
        refitted(config, here, tmp_path / "stopped")
    assert not (tmp_path / "stopped").exists()
    refitted(config, here, tmp_path / "stopped")
    assert seen == list(range(1, 13))
    refitted(config, replace(environment, store=StageStore(tmp_path / "alone")), tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_early_stopping_keeps_patients_whom_nothing_else_sees(
    environment: Environment, tiny_trial: Build, tmp_path: Path
) -> None:
    protocol = Protocol(folds=3, validation=0.25)
    config = tiny_trial(classifier__patience=1)
    refitted(config, environment, tmp_path / "model", protocol=protocol)
    card = read_json(tmp_path / "model" / CARD)
    held = card["training"]["validation"]
    assert 0 < held < 12
    assert sum(card["training"]["images"].values()) == len(environment.cohort) - held
    assert len(card["training"]["seen"]) == len(environment.cohort)
    stages = refit_stages(config, protocol, environment)
    assert stages.keys.split.test == ()
    patients = [
        {environment.cohort.entries[index].patient for index in part}
        for part in (stages.keys.split.train, stages.keys.split.validation)
    ]
    assert not patients[0] & patients[1]


def test_what_is_no_model_is_refused_in_a_sentence(environment: Environment, tiny_trial: Build, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'.*nothing' holds no usable model \(model.json: .*Refit the search"):
        load_model(tmp_path / "nothing", CPU)
    folder = tmp_path / "model"
    refitted(tiny_trial(), environment, folder)
    card = read_json(folder / CARD)
    write_json(folder / CARD, {**card, "format": 99})
    with pytest.raises(DataError, match=r"has the format 99; expected 1"):
        load_model(folder, CPU)
    write_json(folder / CARD, {**card, "preprocess": {**card["preprocess"], "low": 5.0, "high": 4.0}})
    with pytest.raises(DataError, match=r"intensities run from 5.0 to 4.0"):
        load_model(folder, CPU)
    write_json(folder / CARD, card)
    (folder / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match=r"is not the file that was written"):
        load_model(folder, CPU)
