"""Scores are those of the definitions, whatever the blocks, the order of rows or the gaps."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy import scores
from benchmarks.accuracy.forecasting import Forecasts, to_frame
from benchmarks.accuracy.scores import TaskScores, score_frames
from benchmarks.accuracy.task import Origins, Task, load_last_window, load_ltsf
from pipeline.errors import DataError
from tests.benchmarks.accuracy_tables import BORDERS, LEVELS, by_definition, long_file, wide_file

H = 6
QUANTILES = [f"q{level}" for level in LEVELS]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Return two hourly series, one with gaps."""
    return load_ltsf(wide_file(tmp_path), H, borders=BORDERS)


def some_forecasts(task: Task, origins: Origins, seed: int = 0) -> Forecasts:
    """Return random quantiles around the level of each series at every origin, all in one block."""
    rng = np.random.default_rng(seed)
    columns_N = np.repeat(np.arange(len(task.ids)), origins.count_B)
    origins_N = np.concatenate([np.arange(first, last + 1) for first, last in zip(*origins, strict=True)])
    level_B = np.nanmean(task.panel.values_TB, axis=0)
    noise_NHQ = np.sort(rng.normal(size=(len(columns_N), task.horizon, 9)), axis=-1)
    quantiles_NHQ = level_B[columns_N][:, None, None] * (1 + 0.3 * noise_NHQ)
    return Forecasts(columns_N, origins_N, quantiles_NHQ, quantiles_NHQ)


def joined(task: Task, frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return forecasts with the file's own values, known ones alone, and the values in long form."""
    wide = pl.read_csv(path, try_parse_dates=True)
    truth = wide.unpivot(index="date", variable_name="unique_id", value_name="y").rename({"date": "ds"})
    return frame.join(truth, on=["unique_id", "ds"]).drop_nulls("y"), truth


def test_ltsf_scores_are_those_of_the_definitions(tmp_path: Path, task: Task) -> None:
    """Shown to fail by a sample instead of a population deviation, and by scoring gaps as zeros."""
    forecasts = some_forecasts(task, task.test)
    rows, truth = joined(task, to_frame(task, forecasts), tmp_path / "wide.csv")
    history = truth.with_row_index("row").filter(pl.col("row") % 200 < BORDERS[1])  # 200 rows of each series
    deviations = history.group_by("unique_id").agg(deviation=pl.col("y").std(ddof=0))
    rows = rows.join(deviations, on="unique_id")
    expected = by_definition(rows["y"].to_numpy(), rows.select(QUANTILES).to_numpy(), rows["deviation"].to_numpy())
    board = TaskScores(task, task.test)
    board.add(*forecasts[:3])
    result = board.result()
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert (result["points"], result["missing"]) == (rows.height, 0)


def test_mase_is_the_mean_over_series_that_have_a_scale(tmp_path: Path) -> None:
    """Shown to fail by weighing points instead of series, and by a scale from all rows, or from the training rows (none of z has one)."""
    path = long_file(
        tmp_path, {"x": list(range(60)), "y": list(range(40)), "short": list(range(4)), "flat": list(range(50)), "z": list(range(11))}
    )
    frame = pl.read_csv(path).with_columns(y=pl.when(pl.col("unique_id") == "flat").then(7.1).otherwise("y"))
    frame = frame.with_columns(y=pl.when((pl.col("unique_id") == "y") & pl.col("ds").is_in([36, 38])).then(None).otherwise("y"))
    frame.write_csv(path)
    task = load_last_window(path, H, season=4)
    forecasts = some_forecasts(task, task.test)
    per_series = []
    for name in ("x", "y", "z"):
        y_T = frame.filter(unique_id=name).sort("ds")["y"].to_numpy()
        past_T, median_H = y_T[:-H], forecasts.quantiles_NHQ[task.panel.series_ids.index(name), :, 4]
        per_series.append(np.nanmean(np.abs(y_T[-H:] - median_H)) / np.abs(past_T[4:] - past_T[:-4]).mean())
    result = score_frames(task, [to_frame(task, forecasts)])
    assert result["mase"] == pytest.approx(np.mean(per_series), rel=1e-12)
    assert result["series_without_scale"] == 2
    num_gaps, num_short = 2, 3  # of the series shorter than the horizon, what follows its first value
    assert result["points"] == 4 * H - num_gaps + num_short


def test_frames_score_as_arrays_do_in_any_order(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by slices that forget the rest of a forecast cut in two."""
    monkeypatch.setattr(scores, "SLICE_ROWS", 7)
    forecasts = some_forecasts(task, task.validation)
    board = TaskScores(task, task.validation)
    board.add(*forecasts[:3])
    shuffled = to_frame(task, forecasts).sample(fraction=1.0, shuffle=True, seed=0)
    result = score_frames(task, [shuffled.head(100), shuffled.slice(100)], task.validation)
    assert result["by_lead"]["mae"] == pytest.approx(board.result()["by_lead"]["mae"], rel=1e-12)
    assert result["wql"] == pytest.approx(board.result()["wql"], rel=1e-12)


def test_scores_by_lead_average_to_the_whole_without_gaps(tmp_path: Path) -> None:
    task = load_ltsf(wide_file(tmp_path, gaps=False), H, borders=BORDERS)
    result = score_frames(task, [to_frame(task, some_forecasts(task, task.test))])
    for name in ("mse", "mae", "mase", "coverage80"):
        assert np.mean(result["by_lead"][name]) == pytest.approx(result[name])


def test_a_point_is_what_the_squared_error_is_of(task: Task) -> None:
    """Shown to fail by squared errors of the median whatever the frame says."""
    frame = to_frame(task, some_forecasts(task, task.test))
    plain, pointed = score_frames(task, [frame]), score_frames(task, [frame.with_columns(point=pl.col("q0.9"))])
    shifted = score_frames(task, [frame.with_columns(pl.col("q0.9").alias("q0.5"))])
    assert pointed["mse"] == pytest.approx(shifted["mse"])
    assert pointed["mae"] == plain["mae"] != shifted["mae"]


def test_coverage_by_window_sees_thirty_days_that_go_wrong(tmp_path: Path) -> None:
    """Shown to fail by windows that do not slide: a bad month from the middle of one to that of the next is halved."""
    stamps = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 7, 18), "1d", eager=True).alias("date")
    frame = pl.DataFrame({"date": stamps, "a": np.zeros(200)})
    frame.write_csv(tmp_path / "days.csv")
    task = load_ltsf(tmp_path / "days.csv", 1, borders=(0, 50, 100, 200))
    origins_N = np.arange(task.test.first_B[0], task.test.last_B[0] + 1)
    is_wrong_N = (origins_N >= 112) & (origins_N < 142)
    quantiles_NHQ = np.where(is_wrong_N[:, None, None], 5.0, np.linspace(-1, 1, 9)[None, None])
    board = TaskScores(task, task.test)
    board.add(np.zeros(100, np.int64), origins_N, quantiles_NHQ)
    assert board.result()["coverage80_by_window"] == {"smallest": 0.0, "largest": 1.0}


def test_forecasts_nobody_asked_for_are_refused_and_absent_ones_counted(task: Task) -> None:
    """Shown to fail by joins that drop what has no partner."""
    frame = to_frame(task, some_forecasts(task, task.test))
    stranger = frame.with_columns(unique_id=pl.lit("c"))
    with pytest.raises(DataError, match="c from"):
        score_frames(task, [frame, stranger])
    with pytest.raises(DataError, match="each point once"):
        score_frames(task, [frame, frame])
    assert score_frames(task, [frame.filter(unique_id="b")])["missing"] > 0


def test_wql_by_hand() -> None:
    """The definitions of this file's own scorer, on two points: half the levels lose on either side."""
    y: NDArray[np.float64] = np.array([1.0, 3.0])
    q = np.array([[0.0] * 9, [4.0] * 9])
    assert by_definition(y, q)["wql"] == pytest.approx(2 * np.mean([level * 1 + (1 - level) * 1 for level in LEVELS]) / 4)
