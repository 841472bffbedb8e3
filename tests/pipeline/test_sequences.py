"""A panel holds each value at its own tick, whatever the order of the rows and the offset of the grid."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from pipeline.errors import DataError
from pipeline.prepare.covariates import PanelCovariates
from pipeline.prepare.sequences import match_series, to_panel
from pipeline.schemas import UTC_US

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
GRIDS = pl.DataFrame({"series_id": ["a/x", "b/x", "c/y"], "sample_interval_us": [3_600_000_000] * 3, "grid_offset_us": [0, 120_000_000, 0]})


def rows(*entries: tuple[str, datetime, float | None]) -> pl.DataFrame:
    """Return observations of (series, label, value)."""
    return pl.DataFrame(entries, schema={"series_id": pl.String, "ts": UTC_US, "value": pl.Float64}, orient="row")


def test_rows_land_on_their_ticks_and_gaps_are_nan() -> None:
    panel = to_panel(rows(("b/x", START + timedelta(minutes=62), 3.0), ("a/x", START + 2 * HOUR, 2.0), ("a/x", START, 1.0)), GRIDS)
    assert panel.series_ids == ("a/x", "b/x")
    np.testing.assert_array_equal(panel.values_TB, [[1.0, 3.0], [np.nan, np.nan], [2.0, np.nan]])
    assert panel.label(1, 0) == START + timedelta(minutes=62)
    assert panel.length_B.tolist() == [3, 1]


def test_a_stamp_between_two_labels_lies_in_the_tick_that_closes_after_it() -> None:
    """Shown to fail by rounding down: a history handed to the MLflow model would put such a value before its own time."""
    panel = to_panel(rows(("a/x", START, 1.0), ("a/x", START + 0.5 * HOUR, 2.0), ("a/x", START + 2 * HOUR, 3.0)), GRIDS)
    np.testing.assert_array_equal(panel.values_TB, [[1.0], [2.0], [3.0]])


def test_asked_series_are_there_without_observations() -> None:
    first = int(START.timestamp()) // 3600 + 1
    panel = to_panel(rows(("a/x", START, 1.0), ("a/x", START + HOUR, 2.0)), GRIDS, since_tick={"a/x": first, "c/y": first})
    assert panel.series_ids == ("a/x", "c/y")
    assert panel.length_B.tolist() == [1, 0]
    np.testing.assert_array_equal(panel.values_TB, [[2.0, np.nan]])


def test_a_series_starts_after_its_last_long_hole_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    stray = datetime(1700, 1, 1, tzinfo=UTC)
    panel = to_panel(rows(("a/x", stray, 1.0), ("a/x", START, 2.0), ("a/x", START + 2 * HOUR, 3.0), ("c/y", START, 4.0)), GRIDS)
    np.testing.assert_array_equal(panel.values_TB, [[2.0, 4.0], [np.nan, np.nan], [3.0, np.nan]])
    assert panel.label(0, 0) == START
    assert "series=a/x starts=2026-01-01" in caplog.text


def test_an_asked_start_before_a_long_hole_moves_behind_it() -> None:
    long_ago = int(datetime(1700, 1, 1, tzinfo=UTC).timestamp()) // 3600
    panel = to_panel(rows(("a/x", START, 1.0)), GRIDS, since_tick={"a/x": long_ago, "c/y": long_ago}, restarts=True)
    assert panel.first_tick_B.tolist() == [int(START.timestamp()) // 3600, long_ago]
    assert panel.length_B.tolist() == [1, 0]


def test_a_start_that_asks_for_too_many_ticks_is_refused() -> None:
    with pytest.raises(DataError, match=r"20000000 ticks or fewer; got .* for a/x"):
        to_panel(rows(("a/x", START, 1.0)), GRIDS, since_tick={"a/x": -25_000_000})


def test_truncating_forgets_later_rows_and_series_that_had_not_begun() -> None:
    panel = to_panel(rows(("a/x", START, 1.0), ("a/x", START + HOUR, 2.0), ("c/y", START + 5 * HOUR, 9.0)), GRIDS)
    before = panel.truncated(START)
    assert before.series_ids == ("a/x",)
    np.testing.assert_array_equal(before.values_TB, [[1.0]])


def test_columns_are_chosen_with_all_that_belongs_to_them() -> None:
    """Shown to fail by leaving the first ticks as they were."""
    panel = to_panel(rows(("a/x", START, 1.0), ("b/x", START + timedelta(minutes=62), 2.0), ("c/y", START + 3 * HOUR, 3.0)), GRIDS)
    panel = replace(panel, covariates=PanelCovariates.of_past(("wind",), np.array([[[4.0], [5.0], [6.0]]])))
    chosen = panel.columns([2, 1])
    assert chosen.series_ids == ("c/y", "b/x")
    assert [chosen.label(b, 0) for b in (0, 1)] == [START + 3 * HOUR, START + timedelta(minutes=62)]
    np.testing.assert_array_equal(chosen.values_TB, [[3.0, 2.0]])
    assert chosen.covariates is not None
    np.testing.assert_array_equal(chosen.covariates.past_TBP, [[[6.0], [5.0]]])


def test_rows_that_are_not_there_have_labels_too() -> None:
    """Shown to fail by labels without the offset of the series' own grid."""
    panel = to_panel(rows(("a/x", START, 1.0), ("b/x", START + timedelta(minutes=62), 2.0)), GRIDS)
    labels = [panel.label(b, 0) + row * HOUR for b, row in ((0, -2), (1, 7))]
    np.testing.assert_array_equal(panel.labels_us(np.array([-2, 7]), np.array([0, 1])), [label.timestamp() * 1e6 for label in labels])
    assert labels[1] == START + timedelta(minutes=62) + 7 * HOUR


def test_series_of_two_intervals_are_refused_by_name_of_the_intervals() -> None:
    mixed = GRIDS.with_columns(sample_interval_us=pl.Series([3_600_000_000, 60_000_000, 60_000_000]))
    with pytest.raises(DataError, match=r"one sample interval; got 0:01:00, 1:00:00"):
        to_panel(rows(("a/x", START, 1.0), ("b/x", START, 1.0)), mixed)


@pytest.mark.parametrize(("pattern", "found"), [("a/x", ["a/x"]), ("*/x", ["a/x", "b/x"]), ("?/y", ["c/y"])])
def test_patterns_are_globs(pattern: str, found: list[str]) -> None:
    assert match_series(GRIDS, [pattern])["series_id"].to_list() == found


def test_a_pattern_that_finds_nothing_says_what_there_is() -> None:
    with pytest.raises(DataError, match="There are a/x, b/x, c/y"):
        match_series(GRIDS, ["a.x"])
