"""A saved model as an MLflow model: a script that loads it, the files it loads, and the tables it takes and gives.

Called by `pipeline.tracking.registry`. The package can be served (`mlflow models serve`) and loaded by `mlflow.pyfunc.load_model`
wherever tidecast is installed; it holds no pickle.
"""

import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from models.config import ForecasterConfig

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

SCRIPT = Path(__file__).parent / "mlflow_model.py"
# tidecast itself is not among them: the name on a package index need not be ours, so an environment made from this list asks for it.
REQUIREMENTS = ("mlflow", "numpy", "pandas", "polars", "pyarrow", "pydantic-settings", "safetensors", "torch")
EXAMPLE_TICKS = 12


def write_package(target: Path, files: Mapping[str, Path], config: ForecasterConfig, model: "Model") -> None:
    """Write a saved model in MLflow's form.

    Args:
        target: folder to make.
        files: what the script reads, by the names it uses: `weights` and `card`.
        config: of the forecaster; decides the columns of the answer.
        model: MLflow's record of the logged model, filled in here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow.pyfunc warns about type hints of its own classes when it is imported
        from mlflow import pyfunc

        pyfunc.save_model(
            path=target,
            python_model=SCRIPT,
            artifacts={name: str(path) for name, path in files.items()},
            signature=_signature(config),
            input_example=_example(config).to_pandas(),
            pip_requirements=[f"{name}=={_public_version(name)}" for name in REQUIREMENTS],
            mlflow_model=model,
        )


def _public_version(name: str) -> str:
    """Return an installed version without its local part: no index has torch 2.13.0+cpu."""
    return version(name).partition("+")[0]


def _signature(config: ForecasterConfig) -> "ModelSignature":
    """Return the schemas: a long history in (ds naive, in UTC), quantiles of each series and step out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    quantiles = [ColSpec("double", f"q{level:g}") for level in config.quantile_levels]
    covariates = [ColSpec("double" if isinstance(value, float) else "string", name) for name, value in _covariates(config).items()]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "unique_id"), ColSpec("datetime", "ds"), ColSpec("double", "y"), *covariates]),
        outputs=Schema([ColSpec("string", "unique_id"), ColSpec("datetime", "cutoff"), ColSpec("datetime", "ds"), *quantiles]),
    )


def _example(config: ForecasterConfig) -> pl.DataFrame:
    """Return a few ticks of one series, as a request would bring them."""
    start, interval = datetime(2026, 1, 1), timedelta(seconds=config.sample_interval_s)  # noqa: DTZ001 (MLflow's datetime is naive)
    rows = [("meter-1/power", start + tick * interval, 20.0 + tick % 6) for tick in range(EXAMPLE_TICKS)]
    frame = pl.DataFrame(rows, schema=["unique_id", "ds", "y"], orient="row")
    return frame.with_columns(pl.lit(value).alias(name) for name, value in _covariates(config).items())


def _covariates(config: ForecasterConfig) -> dict[str, float | str]:
    """Return an example of each covariate's column; `kind=pump` and `kind=valve` are one column `kind` of words."""
    words = dict(name.split("=", 1) for name in config.static_covariates if "=" in name)
    numbers = (*config.past_covariates, *config.future_covariates, *config.static_covariates)
    return {name: 1.0 for name in numbers if "=" not in name} | words
