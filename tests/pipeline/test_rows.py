"""Rows of the forecasts table: honest about what they rest on, and never without a number."""

from datetime import UTC, datetime

import numpy as np

from pipeline.forecast.engine import Block
from pipeline.forecast.rows import Issue, forecast_rows, status_of
from tests.lakes import CONFIG
from tests.laws.panels import START, hourly_panel

NOW = datetime(2026, 4, 1, tzinfo=UTC)


def test_a_forecast_that_is_no_number_becomes_a_named_fallback_for_its_series_alone() -> None:
    panel = hourly_panel(np.array([[1.0, 5.0], [2.0, np.nan]]))
    quantiles = np.full((1, 2, CONFIG.horizon, 9), 3.0)
    quantiles[0, 1, 0, 0] = np.nan
    block = Block(np.arange(2), np.array([1]), quantiles, quantiles)
    status_TB = np.full((2, 2), "ok", dtype=object)
    last_B, issue = np.array([8.0, 9.0]), Issue("1-abc", 7, NOW)
    frame = forecast_rows(block, panel, np.arange(2), status_TB, last_B, CONFIG, issue)
    assert frame["status"].to_list() == ["ok", "fallback_last_value"]
    assert frame["origin"].to_list() == [START.replace(hour=1)] * 2
    assert set(frame["quantiles"][0]) == {3.0}
    assert set(frame["quantiles"][1]) == {5.0}


def test_status_names_cold_starts_sparse_stretches_and_series_that_stopped() -> None:
    values_TB = np.ones((40, 4))
    values_TB[20:, 1] = np.nan
    seen_B, stopped_B, since_B = np.array([100, 100, 0, 100]), np.array([False, False, False, True]), np.zeros(4, np.int64)
    status_TB = status_of(values_TB, seen_B, since_B, CONFIG, stopped_B)
    one_by_one = status_of(values_TB[-1:], seen_B, np.array([0, 18, 0, 0]), CONFIG, stopped_B)
    assert one_by_one[0, 1] == status_TB[-1, 1]
    assert status_TB[-1].tolist() == ["ok", "degraded", "ok", "silent"]
    assert status_TB[0, 2] == "cold_start"
