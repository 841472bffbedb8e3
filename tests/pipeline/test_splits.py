"""Borders by instant are the same for all series; borders by rows are each series' own."""

import numpy as np
import torch

from models.config import NetworkConfig
from pipeline.prepare.splits import Split, SplitByRows, split_panel
from pipeline.settings import TrainSettings
from pipeline.train.datamodule import SegmentDataModule
from pipeline.train.fit import forecaster_config
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

ROWS = {"s0/value": (0, 10), "s1/value": (100, 120), "s2/value": (150, 170)}
SPLIT = SplitByRows(START + 149 * HOUR, START + 169 * HOUR, ROWS)
SETTINGS = TrainSettings(horizon=12, network=NetworkConfig(hidden_size=4), segment_length=64, burn_in=16, batch_size=16)


def test_borders_are_those_given_and_else_by_fraction() -> None:
    """Shown to fail by ending validation at its fraction where only training's end is given: that may lie before it."""
    panel, by_halves = hourly_panel(daily_cycle(101, 2)), SETTINGS.model_copy(update={"validation_fraction": 0.25, "test_fraction": 0.5})
    quarter, half, late = (START + hours * HOUR for hours in (25, 50, 80))
    assert split_panel(panel, by_halves) == Split(quarter, half)
    assert split_panel(panel, by_halves, late) == Split(late, panel.end)
    assert split_panel(panel, by_halves, validation_end=late) == Split(quarter, late)


def test_rows_split_alike_whether_by_number_or_by_instant() -> None:
    panel = hourly_panel(daily_cycle(200, 2))
    by_instant = Split(START + 99 * HOUR, START + 119 * HOUR)
    by_rows = SplitByRows(by_instant.train_end, by_instant.validation_end, dict.fromkeys(panel.series_ids, (100, 120)))
    np.testing.assert_array_equal(by_instant.train_rows(panel), by_rows.train_rows(panel))
    np.testing.assert_array_equal(by_instant.validation_rows(panel), by_rows.validation_rows(panel))


def test_rows_follow_their_series_when_others_are_left_out() -> None:
    """Shown to fail by borders held in the order of the whole panel."""
    panel = hourly_panel(daily_cycle(200, 3)).first_rows(np.array([0, 110, 200]))
    assert panel.series_ids == ("s1/value", "s2/value")
    assert SPLIT.train_rows(panel).tolist() == [100, 150]
    assert SPLIT.validation_rows(panel).tolist() == [110, 170]  # never more than there are


def test_each_series_trains_up_to_its_own_border() -> None:
    """Shown to fail by one border in time for all series."""
    data = SegmentDataModule(hourly_panel(daily_cycle(200, 3)), SPLIT, forecaster_config(SETTINGS, HOUR), SETTINGS)
    assert data.segments.history.length_B.tolist() == [rows + data.segments.history.pad for rows in (100, 150)]
    time_TB, origins_O = data.validation.sequence.time_TB, data.validation.origins_O
    first_origin_B = torch.tensor([-1 if train == 0 else train - 1 for train, _ in ROWS.values()]).clamp(min=0)
    assert time_TB[origins_O[0]].tolist() == (int(START.timestamp()) + 3600 * first_origin_B).tolist()
    assert data.validation.observed_OBH[0].sum(dim=-1).tolist() == [9, 12, 12]
