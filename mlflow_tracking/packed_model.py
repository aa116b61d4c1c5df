"""A model in MLflow's form. Apart from the rest, as importing MLflow's part for it takes seconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types.schema import Array, ColSpec, DataType, Schema

import spaces
import trainables
from mlflow_tracking import served_model
from mlflow_tracking.served_model import PATH, PIXELS
from trainables.model_folder import MODEL, WARNING
from trainables.prediction import ERROR, PREDICTION, columns

_NEEDED = ("mlflow", "torch", "numpy", "scikit-learn", "safetensors", "SimpleITK", "PyYAML")
"""What the code that goes with a model imports."""


def pack(folder: Path, card: Mapping[str, Any], packed: Path) -> None:
    """Write a model in MLflow's form: its folder as an artifact, and the code that reads it.

    Args:
        folder: the model's.
        card: what its ``model.json`` says.
        packed: the folder to write, new.
    """
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    save_model(
        path=packed,
        python_model=str(served_model.__file__),
        artifacts={MODEL: str(folder)},
        code_paths=[str(Path(str(each.__file__)).parent) for each in (spaces, trainables)],
        signature=signature(card["classes"]),
        input_example=input_example(card),
        pip_requirements=_requirements(),
        metadata={"warning": WARNING, "search": card["search"]["name"], "trial": card["search"]["trial"]},
    )


def signature(classes: list[str]) -> ModelSignature:
    """What a served model takes and gives. See ``served_model.ServedModel.predict``."""
    pixels = Array(Array(DataType.double))
    inputs = [ColSpec("string", PATH, required=False), ColSpec(pixels, PIXELS, required=False)]
    texts = (PREDICTION, ERROR)
    outputs = [ColSpec("string" if name in texts else "double", name) for name in columns(classes)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def input_example(card: Mapping[str, Any]) -> pd.DataFrame:
    """A picture of the right size in the right units that shows no patient: a ramp from dark to bright."""
    preparation = card["preprocess"]
    ramp_P = np.linspace(preparation["low"], preparation["high"], preparation["pixels"])
    return pd.DataFrame({PIXELS: [np.tile(ramp_P, (len(ramp_P), 1)).tolist()]})


def _requirements() -> list[str]:
    """Exact versions, without what a build adds to its own ("2.13.0+cpu")."""
    found = []
    for package in _NEEDED:
        try:
            found.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return found
