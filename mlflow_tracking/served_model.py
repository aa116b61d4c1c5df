"""What MLflow runs to serve a model: it loads this file ("models from code") and unpickles nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from trainables.model_folder import MODEL, Model, load_model
from trainables.prediction import Predicted, columns, files, likeliest, predict, predict_arrays
from trainables.trial import best_device

PATH = "path"
PIXELS = "pixels"


class ServedModel(PythonModel):  # type: ignore[misc]
    """Class probabilities of images: files by ``path``, or raw ``pixels`` in the units of the training files."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights, on the GPU if there is one."""
        self._model = load_model(Path(context.artifacts[MODEL]), best_device(1.0))

    def predict(
        self, context: PythonModelContext | None, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classify images.

        Args:
            context: MLflow's, not needed.
            model_input: a table with a column ``path`` (files here) or ``pixels`` (each H x W, without a pixel
                spacing). An array N x H x W is taken as well, but not through MLflow's own check of inputs, which
                knows tables alone: ``pandas.DataFrame({"pixels": list(images_NHW)})`` passes it.
            params: none are known.

        Returns:
            ``probability_CLASS`` of each class, ``prediction`` and ``error``, a row for each image, in order. An image
            that cannot be used has NaN, no prediction, and the reason.

        Raises:
            ValueError: the input is neither.
        """
        if isinstance(model_input, np.ndarray) and model_input.ndim == 3:
            return _table(list(predict_arrays(self._model, list(model_input))), self._model)
        if isinstance(model_input, pd.DataFrame) and len(model_input):
            given = [name for name in (PATH, PIXELS) if name in model_input and model_input[name].notna().all()]
            if given == [PATH]:
                paths = [Path(path) for path in model_input[PATH]]
                return _table(list(predict(self._model, [files(paths)])), self._model)
            if given == [PIXELS]:
                arrays = [np.asarray(each, dtype=np.float32) for each in model_input[PIXELS]]
                return _table(list(predict_arrays(self._model, arrays)), self._model)
        raise ValueError(
            f"the model was given {_named(model_input)}; expected a table with a column '{PATH}' or '{PIXELS}', filled "
            f"in every row, or an array N x H x W."
        )


def _table(found: Sequence[Predicted], model: Model) -> pd.DataFrame:
    classes = model.classes
    unknown = (np.nan,) * len(classes)
    rows = [(*(each.probabilities or unknown), likeliest(each, classes), each.error) for each in found]
    return pd.DataFrame(rows, columns=list(columns(classes)))


def _named(given: object) -> str:
    if isinstance(given, pd.DataFrame):
        return f"{len(given)} rows of {', '.join(map(str, given.columns)) or 'no column'}"
    return f"an array {given.shape}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"


mlflow.models.set_model(ServedModel())
