"""Law 6: a column equal to the future target, declared past-only, does not help.

At tick t the column holds the target of t + 1, which nobody knows before t + 1: there it is available when that target is. The machinery
must keep it out of every origin before, in training, in the backtest and live, so it is worth no more than a column of which nothing
is known. Were it available at t, it would help a lot: that is what is held back.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.config import NetworkConfig
from pipeline.evaluate.scoring import MODEL, Period, score_forecaster
from pipeline.forecast.engine import StreamEngine
from pipeline.forecast.rolling import forecast
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import split_panel
from pipeline.settings import CovariateSettings, ForecastSettings, TrainSettings
from pipeline.store.forecasts import scan_forecasts
from pipeline.store.lake import Lake, read
from pipeline.train.fit import fit, forecaster_config
from pipeline.train.train import load_panel
from tests.lakes import CONFIG, TestLake, hourly_readings, random_weights

NUM_HOURS = 400
NOISE = np.random.default_rng(6).normal(20, 1, NUM_HOURS)  # nothing but the column says anything of the next value
TARGET = hourly_readings(NUM_HOURS, ("oven/heat",)).with_columns(value=pl.Series(NOISE))
# The target of t + 1 under the stamp of t.
NEXT_TARGET = TARGET.with_columns(series_id=pl.lit("oven/ball"), ts=pl.col("ts").shift(1)).drop_nulls("ts")
KNOWN_AT_ONCE = NEXT_TARGET.head(3).with_columns(received_at=pl.col("ts"))  # so that the column is not empty, which training refuses
SETTINGS = TrainSettings(
    horizon=1,
    max_epochs=8,
    highway_first=False,
    learning_rate=0.02,
    segment_length=64,
    burn_in=16,
    validation_fraction=0.25,
    test_fraction=0.1,
    network=NetworkConfig(hidden_size=8, num_layers=1),
    covariates=CovariateSettings(past=("ball",)),
)
COLUMNS = {
    "a crystal ball": pl.concat([KNOWN_AT_ONCE, NEXT_TARGET[3:]]),
    "nothing": KNOWN_AT_ONCE,
    "a crystal ball said to be known at once": NEXT_TARGET.with_columns(received_at=pl.col("ts")),
}


def lake_with(folder: Path, column: str) -> TestLake:
    lake = TestLake.at(folder)
    lake.settings = lake.settings.model_copy(update={"train": SETTINGS, "forecast": ForecastSettings(calibrate=False)})
    lake.ingest(pl.concat([TARGET, COLUMNS[column]]))
    return lake


def validation_wql(panel: Panel) -> float:
    """Train on the panel and score its validation period."""
    split = split_panel(panel, SETTINGS)
    forecaster = fit(panel, split, forecaster_config(SETTINGS, panel.interval, panel.covariates), SETTINGS).forecaster
    period = Period(start=split.train_end, end=split.validation_end, train_end=split.train_end)
    return float(score_forecaster(forecaster, panel, panel, period, baselines=False).overall().filter(model=MODEL)["wql"][0])


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The score of a training with each column, from files to the validation period."""
    lakes = {column: lake_with(tmp_path_factory.mktemp("lake"), column) for column in COLUMNS}
    return {column: validation_wql(load_panel(lake.settings, Lake(lake.settings.lake), None)) for column, lake in lakes.items()}


def test_a_column_of_the_future_target_is_worth_nothing(scores: dict[str, float]) -> None:
    """Shown to fail by reading the newest revisions of covariates in place of those known on time."""
    assert scores["a crystal ball"] == scores["nothing"]


def test_what_is_held_back_would_have_helped(scores: dict[str, float]) -> None:
    """Shown to fail by leaving past covariates out of the features: the law must not hold because nothing is read."""
    assert scores["a crystal ball said to be known at once"] < 0.7 * scores["nothing"]


def test_no_live_forecast_reads_the_column_either(tmp_path: Path) -> None:
    """Shown to fail by reading the newest revisions in `join_covariates`."""
    ball, nothing = (lake_with(tmp_path / column, column) for column in ("a crystal ball", "nothing"))
    forecaster = random_weights(config=replace(CONFIG, past_covariates=("ball",), horizon=1))
    ball.register(forecaster)
    forecast(ball.settings, ball.clock, origins=50)
    issued = np.array(read(scan_forecasts(Lake(ball.settings.lake)).sort("origin"))["quantiles"].to_list())
    panel = load_panel(nothing.settings, Lake(nothing.settings.lake), None)
    engine = StreamEngine(forecaster, forecaster.initial_state(1))
    rows = np.arange(NUM_HOURS - 50, NUM_HOURS)
    (block,) = list(engine.advance(panel.values_TB, panel.time_TB, rows, panel.covariates))
    np.testing.assert_array_equal(issued, block.quantiles_OBHQ.reshape(50, -1).astype(np.float32))
