"""A bundle as MLflow's pyfunc model: MLflow keeps this file with the model, and runs it where the model is loaded."""

from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.models import set_model

import sentray


class SentrayModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Scores texts by the engine `auto`, so that TensorFlow is not loaded where the bundle has the folded network."""

    def load_context(self, context: Any) -> None:
        """MLflow's hook: load the bundle."""
        self._predictor = sentray.Predictor(context.artifacts["bundle"], keep=(), **(context.model_config or {}))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """What `sentray.Predictor` adds, of a frame's first column, of texts, and those of numbers by their names."""
        return self._predictor(model_input.rename(columns={model_input.columns[0]: "text"}))


set_model(SentrayModel())
