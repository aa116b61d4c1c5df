from __future__ import annotations

import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag

from mlflow_tracking import names
from trainables.metrics.catalogue import SCORES

ODD = [
    "sensitivity_HF-I",
    "a b",
    "a/b",
    "/",
    "..",
    ".",
    "",
    " a",
    "a ",
    "alpha_\u03b1",
    "beta_\u03b2",
    "caf\u00e9",
    "x" * 300,
    "100%",
]


@pytest.mark.parametrize("name", ODD)
def test_any_name_becomes_valid(name: str) -> None:
    _validate_metric_name(names.score(name))
    _validate_metric_name(names.per_fold(name))
    _validate_param(names.valid_name(name), "x")
    _validate_tag(names.version(name), "x")
    assert len(names.per_fold(name)) <= 250


def test_valid_names_stay_and_different_names_stay_different() -> None:
    assert names.score("sensitivity_HF-I") == "sensitivity_HF-I"
    assert names.per_fold("balanced_accuracy") == "fold/balanced_accuracy"
    assert len({names.valid_name(name) for name in ODD}) == len(ODD)


def test_a_long_value_is_cut_to_what_mlflow_takes() -> None:
    assert len(names.parameter_value("y" * 10_000)) == 6000
    assert names.parameter_value(0.1 + 0.2) == "0.30000000000000004"
    assert names.parameter_value(True) == "on"


def test_measures_of_images_never_read_as_scores_of_a_classifier() -> None:
    measures = ["kid", "kid_std", "precision", "recall", "coverage", "coverage_HF-I", "copy_rate", "density_caf\u00e9"]
    logged = [names.fidelity(measure) for measure in measures]
    logged += [spread for measure in measures if (spread := names.fidelity_spread(measure)) is not None]
    scores = [*SCORES, "sensitivity_HF-I"]
    logged += [name for score in scores for name in (names.score(score), names.spread(score))]
    assert len(logged) == len(set(logged)) == 2 * len(measures) - 1 + 2 * len(scores)
    for name in logged:
        _validate_metric_name(name)
    assert names.fidelity("kid_std") == "fidelity_kid_subset_std"
    assert names.fidelity_spread("kid") == "fidelity_kid_std"
