"""What a search will cost: in proportion to what it computes, from what was measured, and not where nothing was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from search.chosen_space import chosen_space
from search.cost_estimate import estimate, known_durations, unmeasured
from search.durations import Durations, reference_durations
from search.simulation.work import RelativeWork
from search.simulation.workload import DrawnWorkload
from spaces.budget import budget_named
from spaces.presets import PRESETS
from spaces.reference import reference_policies
from spaces.space_file import space_from_yaml


def finish(storage: Path, stage: str, name: str, *, seconds: float, inputs: Sequence[str] = (), **key: object) -> None:
    """A finished stage of a storage, as far as durations read it."""
    folder = storage / "_shared" / "stages" / stage / name
    folder.mkdir(parents=True)
    manifest = {"key": {"inputs": inputs, "position": None, **key}, "seconds": seconds, "failed": None}
    (folder / "stage.json").write_text(json.dumps(manifest))


def finish_classifier(
    storage: Path, name: str, *, of: str, seconds: float, images: int, epochs: int = 12, classifier: str = "small_cnn"
) -> None:
    config = {"classifier": {"name": classifier, "batch_size": 32}, "mixer": {"name": "real"}, "counts": [[images], []]}
    finish(storage, "classifier", name, seconds=seconds, inputs=[of], config=config, position=epochs)


def without_chance(durations: Durations) -> Durations:
    return replace(durations, spreads={kind: replace(each, sigma=0.0) for kind, each in durations.spreads.items()})


def test_the_cost_of_a_search_is_said_in_words_before_it_starts(tmp_path: Path) -> None:
    budget = budget_named("quick")
    text = "{name: c, dimensions: [{name: affine, type: choice, options: [false, true], default: false}]}"
    space = space_from_yaml(text, source="test")
    finish(tmp_path, "preprocess", "p", seconds=4.0, config={"pixels": 32})
    finish_classifier(tmp_path, "c", of="p", seconds=50.0, epochs=6, images=200)  # six epochs of twelve
    for torn in ("{", '{"key": {"config": {}}, "seconds": 1.0, "failed": null}'):
        folder = tmp_path / "_shared" / "stages" / "classifier" / f"torn{len(torn)}"
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text(torn)
    known = known_durations(tmp_path, space, budget, images=200)
    assert known.measured == 2
    references = reference_policies(space)
    found = estimate(
        space,
        budget,
        trials=4,
        folds=3,
        concurrency=2,
        sampler="random",
        durations=known,
        references=references,
    )
    # none, affine and mixup at 1.55 s are references, GenMix trains a DCGAN; each fold is preprocessed once
    assert found.compute_seconds == pytest.approx(3 * (4 + 100 + 100 + 1.55 + 9.3 + 0.06 + 0.8 + 0.8 + 1.5))
    assert found.unshared_seconds == pytest.approx(found.compute_seconds + 3 * 3 * 4)
    # two slots compute the folds of "none" and "affine" side by side, then one of them GenMix: 3 x 104 + 3 x 12.5 - 4
    assert found.in_words() == (
        "About 4 trials x 3 folds: 0:10:55 of compute (0:11:31 if no stage were shared), 0:05:46 on 2 slots, if no "
        "trial is stopped early; roughly, from 2 stages measured in this storage and, for what they do not tell, "
        "reference durations of one CPU core, in proportion to training images (200 here), pixels and lengths of "
        "training."
    )
    paper = budget_named("paper")
    nothing = known_durations(tmp_path / "none", space, paper, images=200)
    assert unmeasured(space, paper, references, nothing) == "the classifier resnet50 and the generator dcgan"
    assert unmeasured(space, budget, references, known) == ""


def test_what_was_measured_with_some_images_is_brought_to_others(tmp_path: Path) -> None:
    budget = budget_named("quick")
    space, _ = chosen_space("genmix", [], budget)
    finish(tmp_path, "preprocess", "p", seconds=1.0, config={"pixels": 32})
    finish(tmp_path, "extractor", "x", seconds=2.0, inputs=["p"])
    finish(tmp_path, "fidelity", "f", seconds=3.0, inputs=["x", "g"])
    dcgan = {"name": "dcgan", "batch_size": 32, "width": 24}
    finish(tmp_path, "generator", "g", seconds=20.0, inputs=["p"], config=dcgan, position=500)
    finish(tmp_path, "generator", "wider", seconds=99.0, inputs=["p"], config={**dcgan, "width": 99}, position=500)
    finish_classifier(tmp_path, "c", of="p", seconds=4.0, images=160)
    known = known_durations(tmp_path, space, budget, images=640)
    kinds = [("preprocess", ""), ("extractor", ""), ("fidelity", ""), ("classifier", "small_cnn real")]
    assert [known.spread(*kind).median for kind in kinds] == pytest.approx([4.0, 8.0, 12.0, 16.0])
    assert known.spread("generator", "dcgan").median == pytest.approx(10.0)  # half the steps; images play no part
    assert known.measured == 5


def test_stages_of_the_searchs_pixels_count_alone_and_others_by_their_area(tmp_path: Path) -> None:
    budget = budget_named("quick")
    for pixels, seconds in ((32, 1.0), (64, 6.0)):
        finish(tmp_path, "preprocess", f"p{pixels}", seconds=0.1, config={"pixels": pixels})
        finish_classifier(tmp_path, f"c{pixels}", of=f"p{pixels}", seconds=seconds, images=200)
    finish_classifier(tmp_path, "vgg", of="p32", seconds=8.0, images=200, classifier="vgg16")
    for pixels, expected in ((32, 1.0), (64, 6.0), (128, 16 * 1.25)):  # 1.25 lies between 1 and 6 / 4
        space, _ = chosen_space("genmix", [f"preprocess.pixels={pixels}"], budget)
        known = known_durations(tmp_path, space, budget, images=200)
        drawn = DrawnWorkload(space, budget, without_chance(known), folds=1, work=RelativeWork(budget), seed=0)
        stages = drawn.evaluation(space.complete({"mixer.name": "real"}), 0).stages
        assert stages[-1].seconds == pytest.approx(expected)
        assert known.knows("classifier", "vgg16")
        assert not known.knows("classifier", "resnet50")
        assert known.spread("classifier", "vgg16 augmix").median == pytest.approx(8.0)


def test_longer_trainings_of_larger_images_take_longer_in_proportion() -> None:
    budget = budget_named("quick")
    space = PRESETS["genmix"]
    durations = reference_durations(budget, images=None)
    assert durations is not None
    drawn = DrawnWorkload(space, budget, durations, folds=1, work=RelativeWork(budget), seed=0)
    usual = space.complete({"mixer.name": "genmix", "generator.name": "dcgan"})
    changed = {**usual, "preprocess.pixels": 64, "classifier.epochs": 36, "generator.steps": 500}
    one, other = ({each.name: each for each in drawn.evaluation(config, 0).stages} for config in (usual, changed))
    times = {name: other[name].seconds / one[name].seconds for name in one}
    assert times == pytest.approx(
        {"preprocess": 1, "generator": 8, "pool": 4, "extractor": 4, "fidelity": 4, "classifier": 12}
    )
    assert all(one[name].key != other[name].key for name in one)
