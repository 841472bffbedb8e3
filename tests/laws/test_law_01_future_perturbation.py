"""Law 1: change, delete, reorder anything that becomes available after t: features, state and forecasts at t are bit-equal.

The whole way is walked: raw readings in a file, ingest, observations as known on time, engine.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from models.batch import CarriedState
from pipeline.forecast.engine import StreamEngine
from pipeline.prepare.sequences import to_panel
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from tests.lakes import HOUR, START, TestLake, hourly_readings, random_weights

ORIGIN_HOUR = 60
ORIGIN = START + ORIGIN_HOUR * HOUR
READINGS = hourly_readings(90)
GAP = READINGS.filter(pl.col("ts") == START + 40 * HOUR)
KNOWN, UNKNOWN = READINGS.filter(pl.col("ts") <= ORIGIN, pl.col("ts") != START + 40 * HOUR), READINGS.filter(pl.col("ts") > ORIGIN)

PERTURBATIONS: dict[str, Callable[[], pl.DataFrame]] = {
    "scaled": lambda: UNKNOWN.with_columns(value=pl.col("value") * 1000 - 7),
    "deleted": lambda: UNKNOWN.head(0),
    "reordered": lambda: UNKNOWN.sample(fraction=1.0, shuffle=True, seed=3),
    "corrections of the past that arrive later": lambda: pl.concat(
        [UNKNOWN, KNOWN.with_columns(value=pl.col("value") + 99, received_at=pl.lit(ORIGIN) + 2 * HOUR, seq=pl.col("seq") + 1000)]
    ),
    "a late reading of a gap": lambda: pl.concat([UNKNOWN, GAP.with_columns(received_at=pl.lit(ORIGIN) + 2 * HOUR)]),
    "a new series": lambda: pl.concat([UNKNOWN, UNKNOWN.with_columns(series_id=pl.lit("zeta/temperature"))]),
}


def features_state_and_forecast(
    folder: Path, future: pl.DataFrame, past: pl.DataFrame = KNOWN
) -> tuple[torch.Tensor, CarriedState, np.ndarray]:
    """Ingest a past and some future, and return what the engine makes of them at the origin."""
    lake = TestLake.at(folder)
    lake.ingest(pl.concat([past, future], how="diagonal_relaxed"))
    on_time = read_observations(Lake(lake.settings.lake), on_time=lake.settings.ingest.allowed_lateness)
    panel = to_panel(on_time, Catalog(lake.settings.state_dir).series())
    rows, columns = ORIGIN_HOUR + 1, [panel.series_ids.index(name) for name in ("north/temperature", "south/temperature")]
    values_TB = np.full((90, 2), np.nan)  # of one shape, whatever the future: matrix products of another shape may round otherwise
    values_TB[: len(panel.values_TB)] = panel.values_TB[:, columns]
    time_TB = int(START.timestamp()) + 3600 * np.arange(90)[:, None].repeat(2, axis=1)
    forecaster = random_weights()
    with torch.inference_mode():
        values = torch.from_numpy(values_TB)
        sequence, _ = forecaster.observe(forecaster.initial_state(2), values, ~values.isnan(), torch.from_numpy(time_TB))
        features_TBF = forecaster.features(sequence)[:rows]
    engine = StreamEngine(forecaster, forecaster.initial_state(2))
    list(engine.advance(values_TB[:rows], time_TB[:rows]))
    beyond = StreamEngine(forecaster, forecaster.initial_state(2))
    (block,) = list(beyond.advance(values_TB, time_TB, np.array([ORIGIN_HOUR])))  # the engine reads the future too, if there is any
    return features_TBF, engine.carried, block.quantiles_OBHQ


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, CarriedState, np.ndarray]:
    """What the undisturbed readings give."""
    return features_state_and_forecast(tmp_path_factory.mktemp("reference"), UNKNOWN)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_nothing_after_the_origin_reaches_it(name: str, tmp_path: Path, reference: tuple[torch.Tensor, CarriedState, np.ndarray]) -> None:
    """Shown to fail by reading the latest revisions in place of those known on time."""
    features_TBF, carried, quantiles = features_state_and_forecast(tmp_path, PERTURBATIONS[name]())
    assert torch.equal(features_TBF, reference[0])
    for field in fields(CarriedState):
        assert torch.equal(getattr(carried, field.name), getattr(reference[1], field.name))
    np.testing.assert_array_equal(quantiles, reference[2])


def test_the_past_does_reach_it(tmp_path: Path, reference: tuple[torch.Tensor, CarriedState, np.ndarray]) -> None:
    """By more than rounding. Shown to fail by the same past: the law must not hold for want of any effect."""
    past = KNOWN.with_columns(value=pl.when(pl.col("ts") == START).then(0.0).otherwise("value"))
    features_TBF, _, quantiles = features_state_and_forecast(tmp_path, UNKNOWN, past)
    assert (features_TBF[-1] - reference[0][-1]).abs().max() > 1e-6
    assert np.abs(quantiles - reference[2]).max() > 1e-6
