"""Every row becomes a reading or a rejected one with its reason; none is dropped, none is both."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.raw import BROKEN_SCHEMA, ORIGIN_SCHEMA, RawBatch
from pipeline.ingest.timestamps import StampRules
from pipeline.ingest.validate import Rules, validate

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LONG = ColumnMapping(
    ts=("ts",), value=("value",), device_id="device", metric="metric", seq="seq", quality="quality", received_at="received", layout="long"
)
WIDE = ColumnMapping(ts=("ts",), value=("a", "b"), layout="wide")
GOOD = {"ts": "2026-05-01T00:00:00Z", "value": "1.5", "device": "d", "metric": "m", "seq": "7", "quality": "0", "received": None}

texts = st.one_of(
    st.none(), st.sampled_from(["", "NA", "1.5", " 2 ", "NaN", "-inf", "abc", "1e400", "2026-05-01T00:00:00Z", "1970-01-01T00:00:00Z"])
)


def batch(*rows):
    frame = pl.DataFrame(list(rows), schema=dict.fromkeys(rows[0], pl.String))
    origins = [(index + 1, None, f"line {index + 1}".encode()) for index in range(len(frame))]
    return RawBatch("x.csv", frame, pl.DataFrame(origins, schema=ORIGIN_SCHEMA, orient="row"), BROKEN_SCHEMA.to_frame())


def judge(raw, mapping, device="plant", accept=()):
    rules = Rules(NOW, timedelta(minutes=5), 2001, device, StampRules(epoch_unit="s"), timedelta(days=30), accept)
    return validate(raw, mapping, rules)


def verdict(mapping=LONG, **changes):
    return judge(batch({**GOOD, **changes}), mapping)


def test_a_good_row_becomes_a_typed_reading():
    (reading,) = verdict().accepted.rows(named=True)
    expected = {"device_id": "d", "metric": "m", "series_id": "d/m", "value": 1.5, "source_seq": 7, "quality": 0, "received_at": None}
    assert expected.items() <= reading.items()
    assert reading["ts"] == datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ts": None}, "missing_timestamp"),
        ({"ts": "soon"}, "unparseable_timestamp"),
        ({"ts": "2026-05-01 00:00:00"}, "naive_timestamp"),
        ({"ts": "1970-01-01T00:10:00Z"}, "implausible_timestamp"),
        ({"ts": "0"}, "implausible_timestamp"),
        ({"ts": "2026-06-01T00:06:00Z"}, "future_timestamp"),
        ({"ts": "2026-05-01T00:06:00Z", "received": "2026-05-01T00:00:00Z"}, "future_timestamp"),
        ({"ts": "2099-01-01T00:00:00Z", "received": "2099-01-01T00:00:00Z"}, "future_timestamp"),
        ({"ts": "2026-04-20T23:59:00Z", "received": "2026-05-21T00:00:00Z"}, "stale_timestamp"),
        ({"device": ""}, "missing_series"),
        ({"metric": None}, "missing_series"),
        ({"value": None}, "missing_value"),
        ({"value": "NA"}, "missing_value"),
        ({"value": "ERR 04"}, "not_a_number"),
        ({"value": "true"}, "not_a_number"),
        ({"value": "NaN"}, "nan_or_infinite"),
        ({"value": "1e400"}, "nan_or_infinite"),
        ({"received": "yesterday"}, "invalid_received_at"),
        ({"seq": "seven"}, "invalid_seq"),
        ({"quality": "good"}, "invalid_quality"),
        ({"quality": "70000"}, "invalid_quality"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_place_and_bytes(changes, code):
    found = verdict(**changes)
    assert found.accepted.is_empty()
    assert found.rejected.select("position", "payload", "error_code").rows() == [("x.csv:1", b"line 1", code)]


def test_the_error_text_shows_the_offending_value_and_no_more_than_a_line_of_it():
    assert verdict(value="ERR 04").rejected["error_text"][0] == "A value requires a number; got ERR 04."
    assert len(verdict(value="x" * 9_999).rejected["error_text"][0]) < 140


def test_what_lies_within_max_future_is_accepted():
    assert len(verdict(ts="2026-06-01T00:05:00Z").accepted) == 1


def test_a_stamp_may_be_as_old_as_max_age_and_any_age_where_no_arrival_is_known():
    """Shown to fail by measuring the age from now."""
    assert len(verdict(ts="2026-04-21T00:00:00Z", received="2026-05-21T00:00:00Z").accepted) == 1
    assert len(verdict(ts="2011-04-21T00:00:00Z").accepted) == 1


def test_a_stale_stamp_is_accepted_where_a_person_says_so():
    old = batch({**GOOD, "ts": "2011-04-21T00:00:00Z", "received": "2026-05-21T00:00:00Z"})
    assert judge(old, LONG).rejected["error_code"].to_list() == ["stale_timestamp"]
    assert len(judge(old, LONG, accept=("stale_timestamp",)).accepted) == 1
    with pytest.raises(SettingsError, match="requires one of stale_timestamp, future_timestamp; got missing_value"):
        judge(old, LONG, accept=("missing_value",))


@pytest.mark.parametrize(
    ("given_id", "device_id", "metric"), [("a/b/c", "a/b", "c"), ("plain", "plain", "value"), ("a/", "a/", "value"), (" d/m ", "d", "m")]
)
def test_a_given_series_id_is_kept_and_taken_apart_at_its_last_slash(given_id, device_id, metric):
    found = judge(
        batch({"id": given_id, "ts": GOOD["ts"], "value": "1"}), ColumnMapping(ts=("ts",), value=("value",), series_id="id", layout="long")
    )
    assert found.accepted.select("series_id", "device_id", "metric").row(0) == (given_id.strip(), device_id, metric)


def test_two_pairs_of_device_and_metric_are_two_series():
    found = judge(batch({**GOOD, "device": "a/b", "metric": "c"}, {**GOOD, "device": "a", "metric": "b/c"}), LONG)
    assert found.accepted["series_id"].to_list() == ["a/b/c", "a/b%2Fc"]


@pytest.mark.parametrize("role", ["device", "metric", "unit"])
@pytest.mark.parametrize(
    "name", ["a\x1b[2Jb", "a\nb", "a\x9bb", "a\u202eb", "a\u200bb", "a\u2028b", "a\x00b", "x" * 2**20, "\U0001f321" * 65]
)
def test_what_no_terminal_should_show_is_no_name(role, name):
    """Shown to fail by looking for the controls of ASCII alone, and by counting letters instead of bytes."""
    raw = batch({**GOOD, "unit": "degC", role: name})
    found = judge(raw, replace(LONG, unit="unit"))
    assert (len(found.accepted), found.rejected["payload"].to_list()) == (0, [b"line 1"])
    assert found.rejected["error_code"][0] == ("invalid_unit" if role == "unit" else "invalid_series")
    assert found.rejected["error_text"][0].isprintable()
    assert len(found.rejected["error_text"][0]) < 160


@pytest.mark.parametrize("name", ["x" * 256, "S\u00fcd / \u5317 (m\u00b3/h)", "\u03a9"])
def test_what_can_be_shown_is_a_name(name):
    assert len(verdict(device=name, metric=name).accepted) == 1


def test_a_column_that_is_no_name_costs_its_cells_alone():
    found = judge(batch({"ts": GOOD["ts"], "a": "1", "b\x1b": "2"}), replace(WIDE, value=("a", "b\x1b")))
    assert found.accepted["series_id"].to_list() == ["plant/a"]
    assert found.rejected["error_code"].to_list() == ["invalid_series"]


def test_letters_that_are_composed_otherwise_are_the_same_name():
    """Shown to fail by taking names as they come: one device would be two series, which look the same."""
    found = judge(batch({**GOOD, "device": "Su\u0308d"}, {**GOOD, "device": "S\u00fcd"}), LONG)
    assert found.accepted["series_id"].to_list() == ["S\u00fcd/m"] * 2


def test_a_file_without_ids_is_one_series_named_after_it():
    found = judge(batch({"ts": GOOD["ts"], "value": "1"}), ColumnMapping(ts=("ts",), value=("value",), layout="long"))
    assert found.accepted.select("series_id", "device_id", "metric").row(0) == ("plant", "plant", "value")


def test_a_wide_row_is_as_many_readings_as_it_has_full_cells():
    rows = [{"ts": "soon", "a": "7", "b": "8"}, {"ts": GOOD["ts"], "a": "1", "b": ""}, {"ts": GOOD["ts"], "a": "NaN", "b": "oops"}]
    found = judge(batch(*rows), WIDE)
    assert found.accepted.select("series_id", "value", "source_seq").rows() == [("plant/a", 1.0, 2)]
    assert found.rejected.select("position", "error_code").rows() == [("x.csv:1", "unparseable_timestamp"), ("x.csv:3:b", "not_a_number")]
    assert found.num_empty == 2


def test_a_wide_table_of_floats_is_empty_where_it_is_nan():
    table = pl.DataFrame({"ts": [1_700_000_000] * 2, "a": [1.0, None], "b": [float("nan"), float("inf")]})
    origins = pl.DataFrame({"line": [1, 2], "item": None, "payload": None}, schema=ORIGIN_SCHEMA)
    found = judge(RawBatch("x.parquet", table, origins, BROKEN_SCHEMA.to_frame()), WIDE)
    assert (found.accepted["value"].to_list(), found.num_empty) == ([1.0], 2)
    assert found.rejected.select("position", "error_code").rows() == [("x.parquet:2:b", "nan_or_infinite")]


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=12))
def test_no_long_row_is_lost_or_counted_twice(rows):
    found = judge(batch(*[{**GOOD, "ts": ts, "value": value, "device": device} for ts, value, device in rows]), LONG)
    lines = [f"x.csv:{row + 1}" for row in found.accepted["row"]] + found.rejected["position"].to_list()
    assert sorted(lines) == sorted(f"x.csv:{index + 1}" for index in range(len(rows)))


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=12))
def test_no_wide_cell_is_lost_or_counted_twice(cells):
    found = judge(batch(*[{"ts": GOOD["ts"], "a": a, "b": b} for a, b in cells]), WIDE)
    assert len(found.accepted) + len(found.rejected) + found.num_empty == 2 * len(cells)
    assert found.rejected["position"].n_unique() == len(found.rejected)


def test_a_clock_that_is_wrong_is_told_so_in_words():
    ahead, behind = {**GOOD, "ts": "2026-06-01T00:06:00Z"}, {**GOOD, "ts": "2026-04-20T00:00:00Z", "received": "2026-05-21T00:00:00Z"}
    told = judge(batch(ahead, behind), LONG).rejected["error_text"].to_list()
    assert "for at most 5 minutes (ingest.max_future); got 2026-06-01T00:06:00Z. Check the clock of the device" in told[0]
    assert "at most 30 days (ingest.max_age) before its arrival; got 2026-04-20T00:00:00Z. Check the device's clock" in told[1]
