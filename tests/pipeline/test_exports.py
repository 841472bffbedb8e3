"""An export says what the frame says, in the form that the reader's own tools take."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import coverage, mae, scaled_crps

from pipeline.errors import DataError, SettingsError
from pipeline.query.exports import to_autogluon, to_csv, to_json, to_nixtla, to_table, write_frame

ORIGIN = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def frame() -> pl.DataFrame:
    """Two series, one origin, two steps, nine levels, one actual missing."""
    cells = [(series_id, step) for series_id in ("a/x", "b/x") for step in (1, 2)]
    columns = {
        "series_id": [series_id for series_id, _ in cells],
        "origin": [ORIGIN] * 4,
        "step": [step for _, step in cells],
        "ts": [ORIGIN + step * HOUR for _, step in cells],
    }
    quantiles = {f"q0.{tenth}": [step + tenth / 10 for _, step in cells] for tenth in range(1, 10)}
    tail = {"model_version": ["3"] * 4, "status": ["ok"] * 4, "created_at": [ORIGIN + HOUR] * 4, "actual": [1.5, 2.0, 1.0, None]}
    made = pl.DataFrame(columns | quantiles | tail)
    return made.with_columns(pl.selectors.starts_with("q0.").cast(pl.Float32), pl.selectors.datetime().dt.cast_time_unit("us"))


def test_json_is_rows_with_iso_instants_and_short_numbers(frame: pl.DataFrame) -> None:
    rows = json.loads(to_json(frame))
    assert len(rows) == 4
    assert (rows[0]["origin"], rows[0]["ts"], rows[0]["q0.1"]) == ("2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z", 1.1)
    assert list(rows[0]) == frame.columns


def test_what_is_not_finite_is_never_written_as_a_number(frame: pl.DataFrame) -> None:
    broken = frame.with_columns(pl.Series("actual", [float("nan"), float("inf"), 1.0, None]))
    assert [row["actual"] for row in json.loads(to_json(broken))] == [None, None, 1.0, None]
    assert [line.rsplit(",", 1)[1] for line in to_csv(broken).splitlines()] == ["actual", "", "", "1.0", ""]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_a_file_holds_the_rows_in_the_format_of_its_suffix(frame: pl.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = write_frame(frame, tmp_path / f"forecasts{suffix}")
    readers = {".json": pl.read_json, ".csv": pl.read_csv, ".parquet": pl.read_parquet}
    back = readers[suffix](path)
    assert_frame_equal(back.select("series_id", "step", "q0.5"), frame.select("series_id", "step", "q0.5"), check_dtypes=False)


def test_parquet_keeps_the_frame_whole(frame: pl.DataFrame, tmp_path: Path) -> None:
    assert_frame_equal(pl.read_parquet(write_frame(frame, tmp_path / "x.parquet")), frame)


@pytest.mark.parametrize(("name", "sentence"), [("x.xlsx", "ends in .json, .csv or .parquet"), ("no/folder.csv", "can be written")])
def test_a_file_that_cannot_be_written_is_refused(frame: pl.DataFrame, tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        write_frame(frame, tmp_path / name)


def test_nixtla_frame_has_the_names_of_cross_validation(frame: pl.DataFrame) -> None:
    nixtla = to_nixtla(frame)
    intervals = [f"tidecast-{side}-{level}" for level in (80, 60, 40, 20) for side in ("lo", "hi")]
    assert nixtla.columns == ["unique_id", "ds", "cutoff", "y", "tidecast", *intervals]
    assert nixtla["ds"].dtype == pl.Datetime("us")
    assert nixtla.row(0)[:5] == ("a/x", datetime(2026, 3, 1, 1), datetime(2026, 3, 1), 1.5, 1.5)  # noqa: DTZ001 (Nixtla's are naive)
    assert nixtla.select("tidecast-lo-80", "tidecast-hi-80", "tidecast-lo-20", "tidecast-hi-20").row(0) == pytest.approx(
        (1.1, 1.9, 1.4, 1.6)
    )


def test_utilsforecast_evaluates_the_nixtla_frame(frame: pl.DataFrame) -> None:
    known = to_nixtla(frame).drop_nulls("y")
    table = evaluate(known, metrics=[mae, coverage, scaled_crps], level=[20, 40, 60, 80])
    by_metric = {(row["unique_id"], row["metric"]): row["tidecast"] for row in table.iter_rows(named=True)}
    assert by_metric["a/x", "mae"] == pytest.approx(0.25)
    assert by_metric["b/x", "coverage_level80"] == 0.0
    assert by_metric["b/x", "scaled_crps"] > 0


def test_autogluon_frame_has_the_names_of_predict(frame: pl.DataFrame) -> None:
    autogluon = to_autogluon(frame)
    assert autogluon.columns == ["item_id", "timestamp", "mean", *(f"0.{tenth}" for tenth in range(1, 10))]
    assert autogluon.height == 4


def test_several_forecasts_of_one_target_are_refused_where_a_tool_would_mix_them(frame: pl.DataFrame) -> None:
    twice = pl.concat([frame, frame.with_columns(model_version=pl.lit("4"))])
    with pytest.raises(DataError, match=r"got 4 with several, first \('a/x'"):
        to_nixtla(twice)
    with pytest.raises(DataError, match="for each series_id, ts"):
        to_autogluon(pl.concat([frame, frame.with_columns(pl.col("origin") + HOUR)]))
    with pytest.raises(DataError, match=r"requires the median q0\.5"):
        to_nixtla(frame.drop("q0.5"))


def test_terminal_table_shows_the_interval_and_says_what_it_leaves_out(frame: pl.DataFrame) -> None:
    written = io.StringIO()
    Console(width=120, file=written).print(to_table(frame, max_rows=3))
    text = written.getvalue()
    assert "a/x" in text
    assert "2026-03-01 01:00" in text
    assert "1 more rows" in text


def test_terminal_table_prints_brackets_and_large_numbers_as_they_are(frame: pl.DataFrame) -> None:
    written = io.StringIO()
    odd = frame.with_columns(pl.lit("hall[red]/x").alias("series_id"), pl.lit(1_234_567.0).alias("q0.5"))
    Console(width=120, file=written).print(to_table(odd))
    assert "hall[red]/x" in written.getvalue()
    assert "1,234,567" in written.getvalue()
