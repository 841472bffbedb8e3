"""The code that MLflow stores with every model and runs to load it: safetensors and JSON in, no pickle.

A script in MLflow's models-from-code form: `pipeline.tracking.packaging` names it by path, and `mlflow.pyfunc.load_model` runs the copy.
Nothing of ours imports it. It requires tidecast in the process that loads it.
"""

from pathlib import Path

import pandas as pd
import polars as pl
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pipeline.forecast.once import forecast_frame
from pipeline.tracking.saved_model import load_model


class Forecaster(PythonModel):
    """Forecasts the next `horizon` steps of every series of a history."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and card from where MLflow has put them."""
        self.loaded = load_model(Path(context.artifacts["weights"]).parent)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 (MLflow's signature)
        model_input: pd.DataFrame,
        params: dict[str, object] | None = None,  # noqa: ARG002 (MLflow's signature)
    ) -> pd.DataFrame:
        """Forecast from the end of each series.

        Args:
            context: unused.
            model_input: history in long form: unique_id, ds (naive, UTC), y.
            params: unused.

        Returns:
            A pandas frame with unique_id, cutoff, ds (naive, UTC) and the quantiles q0.1 … q0.9 in the unit of y.
        """
        forecast = forecast_frame(self.loaded, pl.from_pandas(model_input))
        return forecast.with_columns(pl.col("cutoff", "ds").dt.replace_time_zone(None)).to_pandas()


set_model(Forecaster())
