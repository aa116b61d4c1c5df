from __future__ import annotations

from dataclasses import replace

import pytest

from spaces.budget import BUDGETS
from spaces.config import CLASSIFIERS, ClassifierConfig, trial_config
from spaces.errors import ConfigError
from spaces.presets.classifier_presets import CLASSIFIER_PRESETS


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "xceptoin", "did you mean 'xception'"),
        ("optimizer", "rmsporp", "classifier.optimizer is 'rmsporp'; did you mean 'rmsprop'"),
        ("schedule", "onecycle", "classifier.schedule is 'onecycle'; did you mean 'one_cycle'"),
        ("patience", -1, "classifier.patience is -1; expected a number of epochs, or 0"),
        ("label_smoothing", 1.0, "classifier.label_smoothing is 1.0; expected at least 0, below 1"),
        ("label_smoothing", -0.1, "classifier.label_smoothing is -0.1"),
        ("pretrained", "", "classifier.pretrained is ''; expected a file, a hub id or 'none'"),
    ],
)
def test_a_value_outside_its_bounds_is_refused_with_what_was_expected(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        replace(ClassifierConfig(), **{field: value})  # type: ignore[arg-type]


def test_only_networks_with_imagenet_weights_can_start_from_them() -> None:
    for name in CLASSIFIERS[1:]:
        assert ClassifierConfig(name=name, pretrained="weights.safetensors").pretrained == "weights.safetensors"
    with pytest.raises(ConfigError, match=r"small_cnn has no ImageNet weights; set classifier\.name to one of"):
        ClassifierConfig(name="small_cnn", pretrained="weights.safetensors")


@pytest.mark.parametrize("paper", sorted(CLASSIFIER_PRESETS))
def test_a_preset_is_a_configuration_of_every_classifier(paper: str) -> None:
    for name in CLASSIFIERS:
        flat = {"classifier.name": name, **CLASSIFIER_PRESETS[paper]}
        classifier = trial_config(flat, BUDGETS["quick"]).classifier
        assert all(getattr(classifier, key.partition(".")[2]) == value for key, value in flat.items())


def test_the_presets_say_what_the_papers_say() -> None:
    first, second = CLASSIFIER_PRESETS["dae_gan"], CLASSIFIER_PRESETS["genmix"]
    assert (first["classifier.optimizer"], first["classifier.learning_rate"]) == ("rmsprop", 1e-4)
    assert first["classifier.patience"] > 0  # type: ignore[operator]
    settings = ("epochs", "batch_size", "learning_rate", "patience")
    assert [second[f"classifier.{name}"] for name in settings] == [100, 8, 2e-4, 20]
