"""A task asks for what its protocol says: every window of the test rows, or the last rows of every series."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy.stamps import MONTH
from benchmarks.accuracy.task import load_last_window, load_ltsf
from pipeline.errors import DataError, SettingsError
from tests.benchmarks.accuracy_tables import BORDERS, HOURS, START, long_file, wide_file

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FIRST = date(2015, 1, 31)


def month_starts(num: int, step: int = 1) -> list[date]:
    return [date(2001 + (step * k) // 12, (step * k) % 12 + 1, 1) for k in range(num)]


MONTHS, QUARTERS = month_starts(40), month_starts(40, step=3)
STAMPS = {  # what the file writes, what it means, and the spacing
    "days": ("", [FIRST + k * DAY for k in range(40)], DAY),
    "weeks": ("", [FIRST + 7 * k * DAY for k in range(40)], 7 * DAY),
    "four weeks": ("", [FIRST + 28 * k * DAY for k in range(40)], 28 * DAY),
    "business days": ("", [day for day in (FIRST + k * DAY for k in range(60)) if day.weekday() < 5], DAY),
    "five minutes, off the hour": ("", [START + timedelta(minutes=5 * k + 2) for k in range(40)], timedelta(minutes=5)),
    "jitter": ("", [START + k * HOUR + timedelta(seconds=k * 37 % 60) for k in range(40)], HOUR),
    "month starts": ("", MONTHS, MONTH),
    "month ends": ("", [day - DAY for day in MONTHS], MONTH),
    "months": ("%Y-%m", MONTHS, MONTH),
    "quarters": ("quarter", QUARTERS, 3 * MONTH),
    "years": ("", month_starts(40, step=12), 12 * MONTH),
    "integers": ("", list(range(5, 45)), 7 * DAY),
    "every tenth integer": ("", list(range(5, 405, 10)), 7 * DAY),
}


def written(stamp: date | int, form: str) -> object:
    """Return a stamp as a file may write it."""
    if form == "quarter" and isinstance(stamp, date):
        return f"{stamp.year}Q{stamp.month // 3 + 1}"
    return format(stamp, form) if form else stamp


@pytest.mark.parametrize(("form", "meant", "interval"), STAMPS.values(), ids=STAMPS.keys())
def test_the_last_rows_are_the_test_whatever_the_stamps(
    tmp_path: Path, form: str, meant: Sequence[date | int], interval: timedelta
) -> None:
    """Shown to fail by a grid for business days (holes in the last window), and by months counted in days."""
    stamps = [written(stamp, form) for stamp in meant]
    task = load_last_window(long_file(tmp_path, {"x": stamps, "y": stamps[3:], "z": stamps[-9:]}), horizon=3, season=52)
    assert task.panel.interval == interval
    rows_H = task.test.last_B[:, None] + np.arange(4)  # the origin and the three after it
    expected = pl.Series(meant[-4:]).cast(task.stamp_type).to_list()
    for b in range(3):
        assert task.test.first_B[b] + 4 == task.panel.length_B[b]
        assert task.stamps(rows_H[b], np.full(4, b)).to_list() == expected


def test_last_window_trains_on_what_precedes_both_windows(tmp_path: Path) -> None:
    """Shown to fail by a training border one window late; a series shorter than two windows trains nothing but is forecast."""
    ds_of = {"long": list(range(30)), "short": list(range(7)), "shorter": list(range(3))}
    task = load_last_window(long_file(tmp_path, ds_of), horizon=4)
    by_name = dict(zip(task.panel.series_ids, zip(*task.test, *task.validation, strict=True), strict=True))
    train_B = dict(zip(task.panel.series_ids, task.split.train_rows(task.panel), strict=True))
    assert train_B == {"long": 22, "short": 0, "shorter": 0}
    assert by_name == {"long": (25, 25, 21, 21), "short": (2, 2, 0, -2), "shorter": (0, 0, 0, -6)}
    assert task.origins.height == 3


def test_very_short_series_choose_by_the_last_half_before_their_test(tmp_path: Path) -> None:
    """Shown to fail by whole windows alone: nothing is left to train on. No value of the test trains, chooses or scores a choice."""
    ds_of = {f"s{length}": list(range(length)) for length in (9, 10, 11, 13)}
    task = load_last_window(long_file(tmp_path, ds_of), horizon=6)
    assert dict(zip(task.panel.series_ids, task.split.train_rows(task.panel), strict=True)) == {"s9": 2, "s10": 2, "s11": 3, "s13": 4}
    assert task.split.validation_rows(task.panel).tolist() == (task.panel.length_B - 6).tolist()
    assert task.validation.count_B.tolist() == [0] * 4
    assert task.test.count_B.tolist() == [1] * 4


def test_a_gap_in_history_stays_a_gap(tmp_path: Path) -> None:
    """Shown to fail by closing every series that lacks a tick."""
    stamps = [START + k * HOUR for k in range(60) if k != 20]
    task = load_last_window(long_file(tmp_path, {"x": stamps}), horizon=5)
    assert np.flatnonzero(np.isnan(task.panel.values_TB[:, 0])).tolist() == [20]
    assert task.panel.label(0, 0).replace(tzinfo=None) == START


def test_ltsf_asks_for_every_window_of_the_test_rows(tmp_path: Path) -> None:
    """Shown to fail by a last origin one row early: 2,785 windows of each channel is what the literature scores."""
    stamps = pl.datetime_range(START, START + 14_399 * HOUR, "1h", eager=True)
    frame = pl.DataFrame({"date": stamps, "a": range(14_400), "b": range(14_400)})
    frame.write_csv(tmp_path / "hours.csv")
    task = load_ltsf(tmp_path / "hours.csv", 96)
    assert task.origins.group_by("unique_id").len().sort("unique_id").rows() == [("a", 2785), ("b", 2785)]
    assert task.origins["cutoff"].min() == stamps[11_519]
    assert task.split.train_rows(task.panel).tolist() == [8640, 8640]
    assert task.split.validation_rows(task.panel).tolist() == [11_520, 11_520]


def test_borders_count_rows_of_the_file_and_gaps_stay(tmp_path: Path) -> None:
    """Shown to fail by borders that count ticks, and by keeping the last of two readings of one hour."""
    frame = pl.DataFrame({"date": HOURS, "a": np.arange(200.0)}).filter(~pl.int_range(pl.len()).is_in([50, 51]))
    frame = pl.concat([frame, frame.slice(10, 1).with_columns(a=pl.col("a") + 4)]).sort("date")
    frame.write_csv(tmp_path / "gaps.csv")
    task = load_ltsf(tmp_path / "gaps.csv", 5, borders=(0, 100, 150, 199))
    assert task.panel.values_TB[10, 0] == 12.0
    assert np.flatnonzero(np.isnan(task.panel.values_TB[:, 0])).tolist() == [50, 51]
    assert task.split.train_rows(task.panel).tolist() == [101]  # one row more for two hours less
    assert task.test.first_B.tolist() == [150]


def test_fractions_are_borders_too(tmp_path: Path) -> None:
    path = wide_file(tmp_path)
    rows, shares = (load_ltsf(path, 12, borders=borders) for borders in (BORDERS, (0, 0.6, 0.8, 1)))
    assert rows.split == shares.split
    assert rows.origins.equals(shares.origins)


def test_past_covariates_are_no_series(tmp_path: Path) -> None:
    """Shown to fail by taking every column for a series."""
    task = load_ltsf(wide_file(tmp_path), 12, borders=BORDERS, past_covariates=["b"])
    assert task.panel.series_ids == ("a",)
    assert {name: len(values_T) for name, values_T in task.past_covariates.items()} == {"b": 200}


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("unique_id,ds\na,1\n", "column y"),
        ("unique_id,ds,y\na,1,1\na,1,2\n", "a at 1"),
        ("unique_id,ds,y\na,1,1\na,2,oops\n", "oops"),
        ("unique_id,ds,y\na,soon,1\na,2024-01-01,2\n", "soon"),
        ("unique_id,ds,y\na,1,1\na,2,2\nb,1,1\n", "1 in 1 series: b"),
        ("unique_id,ds,y\na,1,1\na,2,2\n", "longer"),
        ("unique_id,ds,y\na,1,1\na,2,2\na,3,3\na,4,4\na,5,5\na,6,6\na,7,7\n", "3 values before its last 5, .*; got 2 at most"),
        ("unique_id,ds,y\n,1,1\n,2,2\n", "a name in every row"),
        ("", "CSV"),
    ],
)
def test_bad_tables_are_refused_by_name(tmp_path: Path, table: str, named: str) -> None:
    (tmp_path / "bad.csv").write_text(table)
    with pytest.raises(DataError, match=named):
        load_last_window(tmp_path / "bad.csv", 5)


def test_names_stay_as_they_are_written_and_values_may_be_missing(tmp_path: Path) -> None:
    """Shown to fail by missing texts that hold for every column, and by names that are read as numbers."""
    names = ["NA", "null", "None", "007", "-"]
    rows = [f"{name},{tick},{'NA' if tick == 4 else tick}" for name in names for tick in range(20)]
    (tmp_path / "names.csv").write_text("\n".join(["unique_id,ds,y", *rows]))
    task = load_last_window(tmp_path / "names.csv", 5)
    assert task.ids.to_list() == names
    assert np.isnan(task.panel.values_TB).sum(axis=0).tolist() == [1] * len(names)


def test_series_of_another_frequency_are_named(tmp_path: Path) -> None:
    """Shown to fail by a file's spacing without a look at each series."""
    days = [datetime(2024, 1, 1) + k * DAY for k in range(40)]  # noqa: DTZ001
    with pytest.raises(DataError, match=r"hourly \(1:00:00\)"):
        load_last_window(long_file(tmp_path, {"x": days, "y": days, "hourly": [START + k * HOUR for k in range(40)]}), 3)


@pytest.mark.parametrize(
    ("borders", "error"),
    [
        ((0, 5, 3, 9), SettingsError),
        ((0, 0.6, float("nan"), 1), SettingsError),
        ((0, 0.6, float("inf"), 1), SettingsError),
        ((0, 100, 150, 201), DataError),
        ((0, 100, 195, 200), DataError),
    ],
)
def test_impossible_borders_are_refused(tmp_path: Path, borders: tuple[float, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        load_ltsf(wide_file(tmp_path), 12, borders=borders)
