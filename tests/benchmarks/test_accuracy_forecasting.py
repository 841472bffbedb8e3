"""Forecasts of a task are the live engine's, at every origin once, whatever the blocks; and the command says what its file shows."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import forecasting
from benchmarks.accuracy.forecasting import Forecasts, forecast
from benchmarks.accuracy.task import Task, load_last_window, load_ltsf
from pipeline.forecast.engine import StreamEngine
from tests.benchmarks.accuracy_tables import BORDERS, LEVELS, by_definition, long_file, wide_file
from tests.lakes import CONFIG, random_weights


def gathered(task: Task) -> Forecasts:
    """Return all forecasts of the test, ordered by series and origin."""
    blocks = list(forecast(random_weights(), task, task.test))
    whole = Forecasts(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    order_N = np.lexsort((whole.origins_N, whole.columns_N))
    return Forecasts(*(part[order_N] for part in whole))


def long_task(folder: Path) -> Task:
    """Return 12 series of unequal length, one shorter than the horizon."""
    return load_last_window(long_file(folder, {f"s{b}": list(range(3 + 9 * b)) for b in range(12)}), CONFIG.horizon, 24)


@pytest.mark.parametrize("protocol", ["ltsf", "last-window"])
def test_forecasts_do_not_depend_on_slices(tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by an engine begun anew with each slice."""
    task = load_ltsf(wide_file(tmp_path), CONFIG.horizon, borders=BORDERS) if protocol == "ltsf" else long_task(tmp_path)
    whole = gathered(task)
    for name, value in {"CELLS": 700, "EXTRA_ORIGINS": 4, "MOST_SERIES": 3}.items():
        monkeypatch.setattr(forecasting, name, value)
    sliced = gathered(task)
    np.testing.assert_array_equal(whole.columns_N, np.repeat(np.arange(len(task.ids)), task.test.count_B))
    np.testing.assert_array_equal(whole.origins_N, sliced.origins_N)
    np.testing.assert_allclose(whole.quantiles_NHQ, sliced.quantiles_NHQ, rtol=1e-9)


def test_a_forecast_is_what_the_engine_says_of_its_series_alone(tmp_path: Path) -> None:
    """Shown to fail by giving every series of a batch the forecast of its last origin."""
    task = long_task(tmp_path)
    forecasts, forecaster = gathered(task), random_weights()
    for b in (0, 5, 11):
        until = int(task.test.last_B[b]) + 1
        engine = StreamEngine.fresh(forecaster, 1, calibrate=True)
        (block,) = engine.advance(task.panel.values_TB[:until, [b]], task.panel.time_TB[:until, [b]])
        np.testing.assert_allclose(forecasts.quantiles_NHQ[b], block.quantiles_OBHQ[0, 0], rtol=1e-9)
        np.testing.assert_allclose(forecasts.uncalibrated_NHQ[b], block.uncalibrated_OBHQ[0, 0], rtol=1e-9)


def test_values_of_the_test_change_no_forecast(tmp_path: Path) -> None:
    """Shown to fail by origins one row late."""
    task = long_task(tmp_path)
    values_TB = task.panel.values_TB.copy()
    values_TB[np.arange(len(values_TB))[:, None] > task.test.last_B] = 1e6
    changed = replace(task, panel=replace(task.panel, values_TB=values_TB))
    np.testing.assert_array_equal(gathered(task).quantiles_NHQ, gathered(changed).quantiles_NHQ)


def test_the_file_of_forecasts_scores_as_the_line_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shown to fail by cutoffs one row early: scored from CSV and Parquet alone, as a third party would."""
    path, out = wide_file(tmp_path), tmp_path / "forecasts.parquet"
    flags = f"--data {path} --protocol ltsf --horizon 6 --borders 0,0.6,0.8,1 --max-seconds 1 --seeds 2 --out {out}"
    monkeypatch.setattr(sys, "argv", ["accuracy", *flags.split()])
    command.main()
    line = json.loads(capsys.readouterr().out)
    truth = pl.read_csv(path, try_parse_dates=True)
    past = truth.head(BORDERS[1])
    rows = pl.read_parquet(out).join(
        truth.unpivot(index="date", variable_name="unique_id", value_name="y"), left_on=["unique_id", "ds"], right_on=["unique_id", "date"]
    )
    deviation = {name: past[name].std(ddof=0) for name in ("a", "b")}
    known = rows.drop_nulls("y").with_columns(deviation=pl.col("unique_id").replace_strict(deviation))
    assert rows.group_by("seed", "unique_id").agg(pl.col("cutoff").n_unique())["cutoff"].to_list() == [BORDERS[3] - BORDERS[2] - 6 + 1] * 4
    assert rows["cutoff"].min() == truth["date"][BORDERS[2] - 1]
    for seed in (0, 1):
        mine = known.filter(seed=seed)
        expected = by_definition(
            mine["y"].to_numpy(), mine.select(f"q{level}" for level in LEVELS).to_numpy(), mine["deviation"].to_numpy()
        )
        assert {name: line["seeds"][seed][name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert line["mse"] == pytest.approx(np.mean([seed["mse"] for seed in line["seeds"]]), rel=1e-6)


def test_series_too_short_for_a_validation_window_are_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shown to fail by whole validation windows alone: what would train them is refused."""
    path = long_file(tmp_path, {f"s{b}": [str(2000 + year) for year in range(9 + b % 4)] for b in range(12)})
    monkeypatch.setattr(sys, "argv", f"accuracy --data {path} --protocol last-window --horizon 6 --max-seconds 1".split())
    command.main()
    line = json.loads(capsys.readouterr().out)
    assert (line["forecasts"], line["points"], line["missing"], line["series_without_scale"]) == (12, 72, 0, 0)
    assert line["mase"] > 0
    assert (line["validation"]["mae"], line["validation"]["wql"]) == (None, None)


@pytest.mark.parametrize(
    "flags", ["--data {0}/no.csv", "--data {1} --out {1}", "--data {1} --max-seconds nan", "--data {1} --max-seconds inf"]
)
def test_what_cannot_be_done_is_one_sentence_and_exit_2(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shown to fail by opening --out whatever it is: the data are overwritten with forecasts."""
    path = wide_file(tmp_path)
    before = path.read_bytes()
    flags = flags.format(tmp_path, path) + " --protocol ltsf --horizon 6 --borders 0,0.6,0.8,1"
    monkeypatch.setattr(sys, "argv", ["accuracy", *flags.split()])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    said = capsys.readouterr()
    assert (said.out, path.read_bytes()) == ("", before)
    assert said.err.count("\n") == 1
