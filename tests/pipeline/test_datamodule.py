"""What training is fed: a segment holds what the live engine would know at its ticks, covariates included."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from models.batch import CovariateInputs, TrainingBatch
from models.config import ForecasterConfig
from models.forecaster import CausalForecaster
from pipeline.errors import DataError
from pipeline.prepare.covariates import CovariateNames, PanelCovariates
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.train import datamodule
from pipeline.train.datamodule import SegmentDataModule, encode_history, slice_batch
from tests.laws.panels import daily_cycle, hourly_panel
from tests.models.conftest import COVARIATES, random_covariates

CONFIG = ForecasterConfig(sample_interval_s=3600, horizon=6, context_length=30, seasons=(24,), **COVARIATES)
PAD, NUM_TICKS = 20, 40
STARTS_S, COLUMNS_S = torch.tensor([PAD + 10, 5, PAD + 30]), torch.tensor([2, 0, 1])


class Case(NamedTuple):
    """A panel, a batch of three segments of it, and what the engine would know of all of it."""

    panel: Panel
    batch: TrainingBatch
    known: CovariateInputs


@pytest.fixture
def case() -> Case:
    known = random_covariates()
    arrays = known.past_TBP.numpy(), known.future_SBU.numpy(), known.static_BJ.numpy()
    panel = hourly_panel(daily_cycle(80, 3))
    panel = replace(panel, covariates=PanelCovariates(CovariateNames(*CONFIG.covariate_names), *arrays))
    history = encode_history(panel, CONFIG, pad=PAD, pad_after=PAD)
    batch = slice_batch(history, CONFIG, STARTS_S, COLUMNS_S, NUM_TICKS, torch.tensor([0, 39]))
    forecaster = CausalForecaster(CONFIG)
    values_TB, times_TB = torch.from_numpy(panel.values_TB), torch.from_numpy(panel.time_TB)
    live, _ = forecaster.observe(forecaster.initial_state(3), values_TB, ~values_TB.isnan(), times_TB, known)
    assert live.covariates is not None
    return Case(panel, batch, live.covariates)


def test_a_segment_reads_the_covariates_that_the_live_engine_reads(case: Case) -> None:
    """Shown to fail by slicing the plan a row early, and by padding the covariates one tick less than the values."""
    inputs = case.batch.sequence.covariates
    assert inputs is not None
    for s, (start, column) in enumerate(zip((STARTS_S - PAD).tolist(), COLUMNS_S.tolist(), strict=True)):
        there = slice(max(0, -start), NUM_TICKS)
        rows = slice(max(0, start), start + NUM_TICKS)
        assert torch.equal(inputs.past_TBF[there, s], case.known.past_TBF[rows, column])
        ahead = slice(there.start, NUM_TICKS + CONFIG.horizon)
        assert torch.equal(inputs.future_SBF[ahead, s], case.known.future_SBF[rows.start : rows.stop + CONFIG.horizon, column])
        np.testing.assert_array_equal(inputs.static_BJ[s], case.known.static_BJ[column])


def test_before_the_first_tick_nothing_is_known(case: Case) -> None:
    inputs = case.batch.sequence.covariates
    assert inputs is not None
    assert (inputs.past_TBF[:15, 1] == 0).all()
    assert (inputs.future_SBF[:15, 1] == 0).all()


def test_a_panel_with_other_covariates_than_the_forecaster_is_refused(case: Case) -> None:
    with pytest.raises(DataError, match="This forecaster requires"):
        encode_history(replace(case.panel, covariates=None), CONFIG, pad=1, pad_after=1)


def with_readings(rows_of: list[slice]) -> Panel:
    """Return a panel of 40 hours, each series with readings at some rows alone."""
    values_TB = np.full((40, len(rows_of)), np.nan)
    for b, rows in enumerate(rows_of):
        values_TB[rows, b] = b + daily_cycle(40, 1)[rows, 0]
    return hourly_panel(values_TB)


def segments_of(panel: Panel) -> SegmentDataModule:
    split = Split(panel.label(0, 24), panel.label(0, 32))
    config = ForecasterConfig(sample_interval_s=3600, horizon=4, context_length=8)
    return SegmentDataModule(panel, split, config, TrainSettings(horizon=4, burn_in=8, segment_length=16, batch_size=8))


def test_a_series_without_a_reading_before_the_border_is_never_drawn() -> None:
    """Shown to fail by a first reading at row 0 of the padding: segments begin before the panel does, and indices are out of bounds."""
    data = segments_of(with_readings([slice(0, 0), slice(30, 40), slice(3, 40)]))
    assert data.segments.scored_B.tolist() == [0, 0, 21]
    assert all(bool(batch.observed_OBH.any(dim=(0, 2)).all()) for batch in data.segments)


def test_series_that_have_something_to_validate_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by every n-th of all series: of hundreds, those few may be the short ones."""
    monkeypatch.setattr(datamodule, "VALIDATION_SERIES", 2)
    data = segments_of(with_readings([slice(0, 20), slice(0, 40), slice(0, 20), slice(0, 20)]))
    assert data.validation.observed_OBH.shape[1] == 1
    assert data.validation.observed_OBH.any()


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [(slice(24, 40), "a reading before its last tick"), (slice(0, 20), "Validation requires readings between")],
)
def test_too_few_readings_are_told(rows: slice, complaint: str) -> None:
    """Shown to fail without the checks: a division by zero, and a validation loss that is no number in any epoch."""
    with pytest.raises(DataError, match=complaint):
        segments_of(with_readings([rows, rows]))


def test_an_epoch_of_a_large_fleet_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation period must be heard in time. Shown to fail without `MOST_BATCHES`: eight batches cover these ticks once."""
    monkeypatch.setattr(datamodule, "EPOCH_BATCHES", 1)
    config = ForecasterConfig(sample_interval_s=3600, horizon=6, context_length=30, seasons=(24,))
    settings = TrainSettings(horizon=6, segment_length=8, burn_in=4, batch_size=4)
    history = encode_history(hourly_panel(daily_cycle(80, 3)), config, pad=12, pad_after=12)
    assert len(datamodule.Segments(history, config, settings)) == 8
    monkeypatch.setattr(datamodule, "MOST_BATCHES", 3)
    segments = datamodule.Segments(history, config, settings)
    assert len(list(segments)) == len(segments) == 3
