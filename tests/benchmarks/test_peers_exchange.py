"""What peers are given is the task and nothing of its future, and what they give back is scored as if we had made it."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy.scores import score_frames
from benchmarks.accuracy.task import Task, load_last_window, load_ltsf
from benchmarks.peers.exchange import COLUMNS, Budget, Exchange, exchange_of
from pipeline.errors import DataError, SettingsError
from tests.benchmarks.accuracy_tables import BORDERS, long_file, wide_file

HORIZON = 6


def wide(folder: Path, **options: object) -> Task:
    return load_ltsf(wide_file(folder), HORIZON, borders=BORDERS, **options)


def answer(exchange: Exchange, folder: Path, told: float = 0.25) -> Path:
    """Write what a peer would: for each origin and step the same quantiles, in the units it was given."""
    origins = exchange.frames["origins"].join(pl.DataFrame({"step": range(1, exchange.task.horizon + 1)}), how="cross")
    interval = exchange.task.panel.interval
    frame = origins.select("unique_id", "cutoff", (pl.col("cutoff") + pl.col("step") * interval).alias("ds"))
    path = folder / "forecasts.parquet"
    frame.with_columns(pl.lit(told + k).alias(name) for k, name in enumerate(COLUMNS)).sample(fraction=1, shuffle=True).write_parquet(path)
    return path


def test_a_peer_is_given_nothing_after_the_last_origin(tmp_path: Path) -> None:
    """Shown to fail by series one row longer."""
    exchange = exchange_of(wide(tmp_path), Budget(stride=7))
    last = exchange.frames["origins"].group_by("unique_id").agg(pl.col("cutoff").max())
    ends = exchange.frames["series"].group_by("unique_id").agg(pl.col("ds").max())
    assert ends.join(last, on="unique_id").select((pl.col("ds") == pl.col("cutoff")).all()).item()


def test_standardising_reads_training_rows_alone(tmp_path: Path) -> None:
    """Shown to fail by moments of validation rows too."""
    task = wide(tmp_path)
    values_TB = task.panel.values_TB.copy()
    values_TB[BORDERS[1] :] *= 100
    changed = exchange_of(replace(task, panel=replace(task.panel, values_TB=values_TB)), Budget())
    given = exchange_of(task, Budget())
    np.testing.assert_array_equal(changed.scale_B, given.scale_B)
    train = given.frames["series"].with_columns(row=pl.int_range(pl.len()).over("unique_id")).filter(pl.col("row") < BORDERS[1])
    moments = train.group_by("unique_id").agg(mean=pl.col("y").mean(), deviation=pl.col("y").std(ddof=0))
    np.testing.assert_allclose(moments.select("mean", "deviation"), [[0, 1], [0, 1]], atol=1e-9)


def test_forecasts_come_back_in_the_units_and_stamps_of_the_file(tmp_path: Path) -> None:
    """Shown to fail by leaving out the mean."""
    task = wide(tmp_path)
    exchange = exchange_of(task, Budget(stride=5))
    frame = exchange.read_forecasts(answer(exchange, tmp_path, told=0.0))
    means = np.nanmean(task.panel.values_TB[: BORDERS[1]], axis=0)
    first = frame.group_by("unique_id").agg(pl.col("q0.1").first()).sort("unique_id")["q0.1"]
    np.testing.assert_allclose(first, means)
    assert frame["cutoff"].dtype == task.stamp_type
    scores = score_frames(task, [frame])
    asked = task.panel.values_TB[exchange.rows[0][:, None] + np.arange(1, HORIZON + 1), exchange.rows[1][:, None]]
    assert scores["points"] == np.isfinite(asked).sum()


def test_months_and_integers_become_a_regular_grid_and_come_back(tmp_path: Path) -> None:
    """Shown to fail by a grid of 30.4375 days."""
    months = [datetime(2000 + month // 12, month % 12 + 1, 1).date() for month in range(60)]  # noqa: DTZ001 (stamps of files are naive)
    for stamps, frequency in ((months, "MS"), (list(range(60)), "MS")):
        task = load_last_window(long_file(tmp_path, {"a": stamps, "b": stamps[10:]}), 12, 12)
        exchange = exchange_of(task, Budget())
        assert exchange.words["frequency"] == frequency
        days = exchange.frames["series"]["ds"].dt.day().unique().to_list()
        assert days == [1]
        assert sorted(exchange.origins["cutoff"].cast(pl.String).str.slice(0, 10).unique()) == [str(stamps[47])]


def test_a_series_shorter_than_the_horizon_is_answered_as_far_as_it_goes(tmp_path: Path) -> None:
    """Shown to fail by keeping the steps that the file has no stamps for: scoring refuses them."""
    task = load_last_window(long_file(tmp_path, {"short": list(range(4)), "long": list(range(90))}), HORIZON, 1)
    exchange = exchange_of(task, Budget())
    frame = exchange.read_forecasts(answer(exchange, tmp_path))
    assert dict(frame.group_by("unique_id").len().iter_rows()) == {"short": 3, "long": HORIZON}
    assert score_frames(task, [frame])["missing"] == 0


@pytest.mark.parametrize("stride", [0, 2, 9])
def test_a_stride_that_leaves_hours_of_the_day_out_is_refused(tmp_path: Path, stride: int) -> None:
    with pytest.raises(SettingsError, match="coprime to the season of 24 ticks"):
        exchange_of(wide(tmp_path), Budget(stride=stride))


def test_a_coprime_stride_meets_every_hour_of_the_day(tmp_path: Path) -> None:
    """Shown to fail by a stride of 12."""
    origins = exchange_of(load_ltsf(wide_file(tmp_path), 1, borders=(0, 20, 40, 200)), Budget(stride=5)).origins
    assert origins["cutoff"].dt.hour().n_unique() == 24


@pytest.mark.parametrize("change", ["seconds", "stride", "horizon", "value"])
def test_a_result_of_another_task_or_budget_is_not_taken_for_this_one(tmp_path: Path, change: str) -> None:
    """Shown to fail by a fingerprint of task.json alone."""
    task, budget = wide(tmp_path), Budget(seconds=60, stride=5)
    before = exchange_of(task, budget).fingerprint
    assert exchange_of(wide(tmp_path), Budget(seconds=60, stride=5)).fingerprint == before
    values_TB = task.panel.values_TB.copy()
    values_TB[0, 0] += 1
    others = {
        "seconds": (task, replace(budget, seconds=61)),
        "stride": (task, replace(budget, stride=7)),
        "horizon": (replace(task, horizon=HORIZON - 1), budget),
        "value": (replace(task, panel=replace(task.panel, values_TB=values_TB)), budget),
    }
    assert exchange_of(*others[change]).fingerprint != before


@pytest.mark.parametrize("damage", ["twice", "surplus", "missing", "nan"])
def test_incomplete_answers_are_refused(tmp_path: Path, damage: str) -> None:
    """Shown to fail, each, by leaving out its part of the check."""
    exchange = exchange_of(wide(tmp_path), Budget(stride=5))
    path = answer(exchange, tmp_path)
    frame = pl.read_parquet(path).sort("unique_id", "cutoff", "ds")
    broken = {
        "twice": pl.concat([frame[:2], frame[1:2], frame[3:]]),
        "surplus": pl.concat([frame, frame[:1]]),
        "missing": frame[1:],
        "nan": frame.with_columns(pl.when(pl.int_range(pl.len()) > 0).then("q0.5").otherwise(float("nan")).alias("q0.5")),
    }
    broken[damage].write_parquet(path)
    with pytest.raises(DataError, match="A peer requires"):
        exchange.read_forecasts(path)


def test_the_folder_holds_what_the_exchange_says(tmp_path: Path) -> None:
    exchange = exchange_of(wide(tmp_path), Budget(seconds=30, stride=5))
    exchange.write(tmp_path / "folder")
    words = json.loads((tmp_path / "folder/task.json").read_text())
    assert (words["seconds"], words["horizon"], words["fingerprint"]) == (30, HORIZON, exchange.fingerprint)
    for name, frame in exchange.frames.items():
        assert pl.read_parquet(tmp_path / f"folder/{name}.parquet").equals(frame)
