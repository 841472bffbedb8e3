"""The tables say who was best, who was cut off and who failed; and the driver runs a peer once."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.accuracy.forecasting import Forecasts, to_frame
from benchmarks.accuracy.task import Task, load_ltsf
from benchmarks.peers import __main__ as command
from benchmarks.peers.exchange import Budget, exchange_of
from benchmarks.peers.tables import METRICS, UNKNOWN, Row, by_lead, leads_of, overall
from tests.benchmarks.accuracy_tables import BORDERS, wide_file


def row(name: str, wql: float, *, cut_off: bool = False) -> Row:
    leads = {metric: [wql * (step + 1) for step in range(8)] for metric in METRICS}
    scores = {**dict.fromkeys(METRICS, wql), "by_lead": leads, "points": 100}
    return Row(name, scores, 12.0, 0.5, "60 s: stopped at 60 s after 7 of at most 9 steps" if cut_off else "60 s: finished", cut_off)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_best_comes_first_and_a_failure_last_with_its_reason() -> None:
    """Shown to fail by sorting failures as zero."""
    table = cells(overall([Row("broken", None, None, None, "FAILED: out | of memory"), row("second", 0.2), row("first", 0.1)]))
    assert [line[0] for line in table[2:]] == ["first", "second", "broken"]
    assert table[-1][1:] == [UNKNOWN] * 7 + ["FAILED: out / of memory"]


def test_a_peer_that_was_cut_off_is_marked_in_every_table() -> None:
    """Shown to fail by the bare name in the tables by lead."""
    rows = [row("quick", 0.1), row("slow", 0.2, cut_off=True)]
    assert [line[0] for line in cells(by_lead(rows, "wql", 8))[2:]] == ["quick", "slow (cut off)"]
    assert cells(overall(rows))[-1][-1] == "60 s: stopped at 60 s after 7 of at most 9 steps"


@pytest.mark.parametrize(("horizon", "leads"), [(96, [1, 24, 48, 72, 96]), (2, [1, 2]), (1, [1])])
def test_tables_by_lead_show_the_first_the_quarters_and_the_last(horizon: int, leads: list[int]) -> None:
    assert leads_of(horizon) == leads


def test_a_lead_has_the_score_of_its_own_step() -> None:
    """Shown to fail by leads that count from 0."""
    assert cells(by_lead([row("one", 0.1)], "wql", 8)) == [
        ["wql at lead", "1", "2", "4", "6", "8"],
        ["---"] + ["---:"] * 5,
        ["one", "0.1", "0.2", "0.4", "0.6", "0.8"],
    ]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[dict[str, dict], str]:
    """Run the driver on a small file with the peers that tidecast's own environment holds; return the JSON line and what it noted."""
    data = folder / "wide.csv" if (folder / "wide.csv").is_file() else wide_file(folder)
    task = ["--data", str(data), "--protocol", "ltsf", "--horizon", "6", "--borders", ",".join(map(str, BORDERS)), "--stride", "5"]
    monkeypatch.setattr("sys.argv", ["peers", *task, "--results", str(folder / "results"), *flags])
    command.main()
    written = capsys.readouterr()
    return json.loads(written.out.splitlines()[-1])["forecasters"], written.err


def test_a_peer_runs_once_and_its_forecasts_score_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shown to fail by a median one season off; and by running again what is there."""
    first, noted = run(tmp_path, monkeypatch, capsys, "--peers", "seasonal_naive")
    assert noted == "running seasonal_naive\n"
    exchange = pl.read_parquet(tmp_path / "results/series.parquet").filter(pl.col("unique_id") == "b")
    told = pl.read_parquet(tmp_path / "results/seasonal_naive/forecasts.parquet").filter(pl.col("unique_id") == "b").sort("cutoff", "ds")
    season_ago = told.join(exchange.with_columns(pl.col("ds").dt.offset_by("24h")), on="ds")["y"]
    np.testing.assert_allclose(told["q0.5"], season_ago, atol=1e-12)

    ours = tmp_path / "ours.parquet"
    task = load_ltsf(tmp_path / "wide.csv", 6, borders=BORDERS)
    in_units = exchange_of(task, Budget(stride=5)).read_forecasts(tmp_path / "results/seasonal_naive/forecasts.parquet")
    in_units.write_parquet(ours)
    ours.with_suffix(".json").write_text('{"train_seconds": 5.0, "forecast_seconds": 0.5}')
    second, noted = run(tmp_path, monkeypatch, capsys, "--peers", "seasonal_naive", "--ours", str(ours))
    assert noted == ""
    assert second["seasonal_naive"] == first["seasonal_naive"]
    assert second["tidecast"]["scores"] == first["seasonal_naive"]["scores"]


def test_ours_is_the_mean_of_its_seeds_at_the_origins_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shown to fail by scoring the seeds as one, and by scoring origins between those of the stride."""
    task, ours = load_ltsf(wide_file(tmp_path), 6, borders=BORDERS), tmp_path / "ours.parquet"
    columns_N = np.repeat(np.arange(len(task.ids)), task.test.count_B)
    origins_N = np.concatenate([np.arange(first, last + 1) for first, last in zip(*task.test, strict=True)])
    medians = task.panel.values_TB[origins_N[:, None] + np.arange(1, 7), columns_N[:, None]]
    flat = np.nan_to_num(medians)[..., None].repeat(9, axis=2)
    frames = [
        to_frame(task, Forecasts(columns_N, origins_N, flat + error, flat)).with_columns(seed=pl.lit(seed))
        for seed, error in enumerate((0.0, 1e-3))
    ]
    pl.concat(frames).write_parquet(ours)
    result, _ = run(tmp_path, monkeypatch, capsys, "--peers", "", "--ours", str(ours))
    scores = result["tidecast"]["scores"]
    deviation = np.nanstd(task.panel.values_TB[: BORDERS[1]], axis=0)
    strided = np.isfinite(medians[(origins_N - BORDERS[2] + 1) % 5 == 0]).sum()
    assert scores["points"] == strided
    assert scores["mae"] == pytest.approx(0.5 * 1e-3 * np.average(1 / deviation, weights=_points(task)), rel=1e-6)


def _points(task: Task) -> list[int]:
    """Return how many points each series has at every fifth origin."""
    rows = np.arange(BORDERS[2] - 1, BORDERS[3] - 6, 5)
    return [int(np.isfinite(values[rows[:, None] + np.arange(1, 7)]).sum()) for values in task.panel.values_TB.T]


def test_a_peer_that_fails_is_in_the_table_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shown to fail by leaving it out."""
    result, _ = run(tmp_path, monkeypatch, capsys, "--peers", "gluonts_deepar")
    assert result["gluonts_deepar"]["scores"] is None
    assert "FAILED: ModuleNotFoundError: No module named 'gluonts'" in result["gluonts_deepar"]["budget"]


def test_an_unknown_peer_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, monkeypatch, capsys, "--peers", "prophet")
    assert "got prophet" in capsys.readouterr().err
