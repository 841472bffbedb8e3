"""Filled history keeps every reading, says what it has read, and is no forecaster's input."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from polars.testing import assert_frame_equal

from pipeline.errors import CausalityError, DataError
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.offline.fill import FillSettings, FittedFiller, fill_history, fill_panel, fit_filler, panel_with_companions
from pipeline.offline.report import fill_lake
from pipeline.prepare.sequences import Panel, to_panel
from tests.lakes import TestLake, hourly_readings
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

QUICK = FillSettings(num_steps=15, hidden_size=4, reach=20, longest_gap=30)
ROOT = Path(__file__).parents[2]
GRIDS = pl.DataFrame({"series_id": ["a/x", "a/y"], "sample_interval_us": [3_600_000_000] * 2, "grid_offset_us": [0, 0]})


def gappy(num_ticks: int = 300, num_series: int = 2) -> Panel:
    """Return daily cycles; the first series misses 5 ticks, 40 ticks and, openly, its last 3."""
    values_TB = daily_cycle(num_ticks, num_series)
    values_TB[50:55, 0] = values_TB[100:140, 0] = values_TB[-3:, 0] = np.nan
    return hourly_panel(values_TB)


def rows(values_TB: NDArray[np.float64], names: tuple[str, ...]) -> pl.DataFrame:
    """Return hourly observations, null where NaN."""
    ticks = [START + hour * HOUR for hour in range(len(values_TB))]
    frames = [pl.DataFrame({"series_id": name, "ts": ticks, "value": values_TB[:, b]}) for b, name in enumerate(names)]
    return pl.concat(frames).with_columns(pl.col("value").fill_nan(None), pl.col("ts").cast(pl.Datetime("us", "UTC")))


@pytest.fixture(scope="module")
def early() -> FittedFiller:
    """A filler fitted on the first 200 ticks."""
    return fit_filler(gappy().first_rows(np.array([200, 200])), QUICK)


def filled_gap(fitted: FittedFiller, panel: Panel, series: str = "s0/value") -> pl.DataFrame:
    """Return what is filled in of a series after tick 240."""
    report = fill_panel(fitted, panel)
    return report.filter(
        pl.col("series_id") == series, ~pl.col("observed"), pl.col("ts") > START + 240 * HOUR, pl.col("value").is_not_null()
    )


@pytest.fixture
def later() -> Panel:
    """The same history with five ticks missing after the filler was fitted."""
    panel = gappy()
    panel.values_TB[250:255, 0] = np.nan
    return panel


def test_every_reading_stays_and_only_closed_short_gaps_are_filled(early: FittedFiller) -> None:
    """Shown to fail by writing the network's values to all ticks, and by filling gaps of any length."""
    panel = gappy()
    report = fill_panel(early, panel)
    values_TB = report["value"].fill_null(np.nan).to_numpy().reshape(2, -1).T
    np.testing.assert_array_equal(values_TB[panel.observed_TB], panel.values_TB[panel.observed_TB])
    assert np.flatnonzero(np.isnan(values_TB[:, 0])).tolist() == [*range(100, 140), 297, 298, 299]
    assert report.filter(pl.col("observed"))["knowledge_time"].equals(report.filter(pl.col("observed"))["ts"])
    assert report.filter(pl.col("value").is_null())["knowledge_time"].null_count() == 43


def test_knowledge_time_is_the_last_reading_in_reach(early: FittedFiller, later: Panel) -> None:
    """Shown to fail by taking the first reading after the gap."""
    assert set(filled_gap(early, later)["knowledge_time"]) == {START + 274 * HOUR}  # the gap ends at 254 and 20 are in reach


def test_what_the_weights_have_read_counts_as_read(early: FittedFiller) -> None:
    """Shown to fail by looking at the window alone."""
    report = fill_panel(early, gappy()).filter(~pl.col("observed"), pl.col("value").is_not_null())
    assert report["ts"].max() < START + 60 * HOUR
    assert set(report["knowledge_time"]) == {START + 199 * HOUR}


def test_nothing_after_the_knowledge_time_changes_a_filled_value_and_the_reading_at_it_does(early: FittedFiller, later: Panel) -> None:
    """Shown to fail by a window that reaches one tick further than it says."""
    before = filled_gap(early, later)
    later.values_TB[275:, 0] += 100
    assert_frame_equal(filled_gap(early, later), before)
    later.values_TB[274, 0] += 1
    assert (filled_gap(early, later)["value"] != before["value"]).all()


def test_companions_lie_beside_their_series_at_the_same_ticks() -> None:
    """Shown to fail by counting rows from the companion's own start."""
    values_TB = daily_cycle(60, 2)
    observations = rows(values_TB, ("a/x", "a/y"))
    panel = panel_with_companions(observations.filter((pl.col("series_id") == "a/y") | (pl.col("ts") > START + 4 * HOUR)), GRIDS, ("y",))
    assert panel.series_ids == ("a/x",)
    np.testing.assert_array_equal(panel.covariates.past_TBP[:, 0, 0], values_TB[5:, 1])  # type: ignore[union-attr]


def test_a_companion_that_was_read_counts_as_read() -> None:
    """Shown to fail by looking at the readings of the series alone."""
    values_TB = daily_cycle(300, 2)
    values_TB[250:255, 0] = values_TB[258:290, 0] = np.nan
    panel = panel_with_companions(rows(values_TB, ("a/x", "a/y")), GRIDS, ("y",))
    fitted = fit_filler(panel.first_rows(np.array([200])), QUICK)
    assert set(filled_gap(fitted, panel, "a/x")["knowledge_time"]) == {START + 274 * HOUR}


def test_a_seed_decides() -> None:
    """Shown to fail by drawing gaps from an unseeded generator."""
    assert_frame_equal(*(fill_panel(fit_filler(gappy(), QUICK), gappy()) for _ in range(2)))


def test_a_filler_is_never_worse_than_a_line_where_it_was_chosen(early: FittedFiller) -> None:
    """Shown to fail by keeping the last weights after training with a learning rate of 10."""
    assert early.improvement >= 0


def test_a_history_without_a_stretch_to_learn_from_is_refused() -> None:
    values_TB = daily_cycle(40, 1)
    values_TB[::2] = np.nan
    with pytest.raises(DataError, match="Gap filling requires observed stretches of more than 2 ticks"):
        fit_filler(hourly_panel(values_TB), replace(QUICK, longest_gap=1))


def test_a_panel_refuses_filled_history_and_names_the_first_offender() -> None:
    """Shown to fail by selecting series_id, ts and value before looking."""
    values_TB = daily_cycle(300, 1)
    values_TB[50:55] = np.nan
    report = fill_history(rows(values_TB, ("a/x",)), GRIDS, QUICK)
    with pytest.raises(
        CausalityError, match=r"got 5 with a later knowledge_time, such as a/x at 2026-01-07 02:00.* read up to 2026-01-17 11"
    ):
        to_panel(report, GRIDS)
    assert to_panel(report.filter(pl.col("observed")), GRIDS).length_B.tolist() == [300]


@pytest.mark.parametrize("after", [timedelta(0), timedelta(minutes=5)])
def test_a_panel_takes_values_that_were_known_when_they_were_available(after: timedelta) -> None:
    """Shown to fail by comparing with `ts` alone."""
    known = rows(daily_cycle(5, 1), ("a/x",)).with_columns(
        available_at=pl.col("ts") + timedelta(minutes=5), knowledge_time=pl.col("ts") + after
    )
    assert to_panel(known, GRIDS).length_B.tolist() == [5]
    with pytest.raises(CausalityError, match="got 5 with a later knowledge_time"):
        to_panel(known.with_columns(pl.col("knowledge_time") + timedelta(minutes=6)), GRIDS)


def test_a_panel_refuses_values_that_do_not_say_what_they_have_read() -> None:
    silent = rows(daily_cycle(5, 1), ("a/x",)).with_columns(knowledge_time=pl.lit(None, pl.Datetime("us", "UTC")))
    with pytest.raises(CausalityError, match="got 5 with a later"):
        to_panel(silent, GRIDS)


def test_the_example_of_the_documentation_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "causality.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, pl.DataFrame] = {}
    exec(block, names)
    assert names["report"].filter(~pl.col("observed"))["value"].null_count() == 0


def test_a_lake_is_filled_into_a_report_that_ingest_refuses(tmp_path: Path) -> None:
    """Shown to fail by an ingest that leaves out columns it does not know."""
    lake = TestLake.at(tmp_path)
    lake.ingest(hourly_readings(200).filter(~pl.col("seq").is_between(80, 84)))
    report = fill_lake(lake.settings, ["north/*"], QUICK)
    assert report.height == 200
    assert report["value"].null_count() == 0
    report.write_csv(tmp_path / "report.csv")
    with pytest.raises(CausalityError, match=r"got report.csv with a column knowledge_time"):
        ingest_paths(lake.settings, [tmp_path / "report.csv"], IngestOptions(), lake.clock)


def test_a_companion_that_no_device_measures_is_refused(tmp_path: Path) -> None:
    lake = TestLake.at(tmp_path)
    lake.ingest(hourly_readings(30))
    with pytest.raises(DataError, match="companions that the devices measure; got wind"):
        fill_lake(lake.settings, None, replace(QUICK, companions=("wind",)))
