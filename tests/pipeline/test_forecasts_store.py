"""What the forecasts and scores tables promise: one row for each key, the first one, whoever writes how often and at once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.schemas import Forecasts, Scores
from pipeline.store.forecasts import append_forecasts, scan_forecasts
from pipeline.store.lake import Lake, read
from pipeline.store.scores import append_scores, scan_scores
from tests.rivals import race

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def forecasts(series: str, hours: range, *, version: str = "1", status: str = "ok") -> pl.DataFrame:
    """Return one row for each letter of `series` and origin."""
    rows = [{"series_id": name, "origin": START + hour * HOUR} for name in series for hour in hours]
    return pl.DataFrame(rows).with_columns(
        horizon=pl.lit(2),
        sample_interval_us=pl.lit(HOUR // timedelta(microseconds=1)),
        quantile_levels=pl.lit([0.5]),
        quantiles=pl.lit([1.0, 2.0]),
        model_version=pl.lit(version),
        input_version=pl.lit(1),
        status=pl.lit(status),
        created_at=pl.col("origin"),
        origin_date=pl.col("origin").dt.date(),
    )


def scores(steps: range) -> pl.DataFrame:
    rows = [{"series_id": "a", "origin": START, "step": step, "ts": START + step * HOUR, "model_version": "1"} for step in steps]
    figures = {"actual": 1.0, "error": 0.5, "pinball": 0.25, "in_80": True, "scored_at": START, "origin_date": START.date()}
    return pl.DataFrame([{**row, **figures} for row in rows])


def keys(scan: pl.LazyFrame) -> list[tuple[str, int]]:
    return [
        (name, (origin - START) // HOUR) for name, origin in read(scan).sort("series_id", "origin").select("series_id", "origin").rows()
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.create_all()
    return made


def test_rows_come_back_as_they_were_put_in(lake: Lake) -> None:
    rows = Forecasts.conform(forecasts("ab", range(20, 30)))
    assert append_forecasts(lake, rows) == 20
    assert read(scan_forecasts(lake)).sort(Forecasts.key).equals(rows.sort(Forecasts.key))


@settings(max_examples=8, deadline=None)
@given(batches=st.lists(st.tuples(st.sampled_from(["a", "b", "ab"]), st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=4))
def test_each_key_is_stored_once_whatever_overlaps(tmp_path_factory, batches) -> None:
    """Shown to fail by looking only at the first origin_date of a batch, and by leaving out the look."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    lake.create_all()
    wanted: set[tuple[str, int]] = set()
    for series, first, num_origins in batches:
        new = {(name, hour) for name in series for hour in range(first, first + num_origins)} - wanted
        assert append_forecasts(lake, forecasts(series, range(first, first + num_origins))) == len(new)
        wanted |= new
    assert keys(lake.scan(Forecasts)) == sorted(wanted)


def test_issued_forecast_is_never_rewritten(lake: Lake) -> None:
    append_forecasts(lake, forecasts("a", range(1)))
    assert append_forecasts(lake, forecasts("a", range(1), status="degraded")) == 0
    assert read(scan_forecasts(lake))["status"].to_list() == ["ok"]


def test_first_of_two_rows_with_one_key_is_kept(lake: Lake) -> None:
    both = pl.concat([forecasts("a", range(1), status="silent"), forecasts("a", range(1), status="ok")])
    assert append_forecasts(lake, both) == 1
    assert read(scan_forecasts(lake))["status"].to_list() == ["silent"]


def test_models_have_forecasts_of_their_own(lake: Lake) -> None:
    append_forecasts(lake, forecasts("a", range(2), version="1"))
    both = pl.concat([forecasts("a", range(2), version="1"), forecasts("a", range(2), version="2")])
    assert append_forecasts(lake, both) == 2
    assert keys(scan_forecasts(lake, model_version="2")) == [("a", 0), ("a", 1)]


def test_writing_again_commits_nothing(lake: Lake) -> None:
    append_forecasts(lake, forecasts("a", range(3)))
    version = lake.version(Forecasts)
    assert append_forecasts(lake, forecasts("a", range(3))) == 0
    assert append_forecasts(lake, Forecasts.empty()) == 0
    assert lake.version(Forecasts) == version


def test_processes_that_write_the_same_origins_leave_one_row_for_each_key(lake: Lake) -> None:
    """Three processes write the same twelve origins, one commit for each, from the same start.

    Shown to fail by looking through one handle and writing through another: rows are then there twice.
    """
    counts = race(
        "import sys; from pipeline.store.forecasts import append_forecasts; from pipeline.store.lake import Lake\n"
        "from tests.pipeline.test_forecasts_store import forecasts",
        "print(sum(append_forecasts(Lake(sys.argv[1]), forecasts('ab', range(hour, hour + 1))) for hour in range(12)))",
        lake.uri,
    )
    assert keys(lake.scan(Forecasts)) == [(name, hour) for name in "ab" for hour in range(12)]
    assert sum(int(count) for count in counts) == 24


def test_look_at_the_keys_opens_only_the_days_of_the_batch(lake: Lake) -> None:
    """Shown to fail by leaving the condition on origin_date out: the torn file of the day between is then met."""
    append_forecasts(lake, forecasts("a", range(30, 32)))
    (file,) = Path(lake.table_uri(Forecasts)).rglob("origin_date=2026-01-02/*.parquet")
    file.write_bytes(b"")
    assert append_forecasts(lake, forecasts("a", range(0, 72, 48))) == 2


def test_scan_keeps_what_was_asked_for_and_both_ends(lake: Lake) -> None:
    append_forecasts(lake, forecasts("abc", range(48)))
    assert len(keys(scan_forecasts(lake))) == 3 * 48
    assert keys(scan_forecasts(lake, series=["b"], start=START + 23 * HOUR, end=START + 25 * HOUR)) == [("b", 23), ("b", 24), ("b", 25)]
    assert keys(scan_forecasts(lake, series=["nobody"])) == []
    assert keys(scan_forecasts(lake, model_version="2")) == []


def test_scan_reads_instants_of_any_zone(lake: Lake) -> None:
    append_forecasts(lake, forecasts("a", range(22, 26)))
    berlin = pl.Series([START + 24 * HOUR]).dt.convert_time_zone("Europe/Berlin")[0]
    assert keys(scan_forecasts(lake, start=berlin)) == [("a", 24), ("a", 25)]
    assert keys(scan_forecasts(lake, end=berlin - HOUR)) == [("a", 22), ("a", 23)]


def test_step_is_scored_once(lake: Lake) -> None:
    assert append_scores(lake, scores(range(3))) == 3
    assert append_scores(lake, scores(range(1, 5))) == 2
    assert read(scan_scores(lake, model_version="1"))["step"].sort().to_list() == [0, 1, 2, 3, 4]
    assert read(scan_scores(lake, model_version="2")).schema == Scores.polars()
