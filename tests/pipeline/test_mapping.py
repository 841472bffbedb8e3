"""What the names of columns are taken to mean, and what the user's flags change of it."""

import polars as pl
import pytest

from pipeline.errors import DataError
from pipeline.ingest.mapping import ColumnMapping, NoReadingsError, decimal_comma, infer_mapping, prune_wide

SIMULATED = ["device_id", "metric", "ts", "value", "unit", "seq", "received_at"]


def roles(columns, **given):
    return infer_mapping(columns, ColumnMapping(**given))


def test_a_wide_file_has_a_stamp_and_its_other_columns_are_quantities():
    mapping = roles(["date", "HUFL", "OT"])
    assert (mapping.layout, mapping.ts, mapping.value) == ("wide", ("date",), ("HUFL", "OT"))


@pytest.mark.parametrize(
    ("columns", "series_id", "value"),
    [
        (["unique_id", "ds", "y"], "unique_id", "y"),
        (["ds", "y"], None, "y"),
        (["timestamp", "value"], None, "value"),
        (["sensor", "time", "reading"], "sensor", "reading"),
        (["Series_ID", "Timestamp", "Value"], "Series_ID", "Value"),
        (["unique_id", "ds", "y", "temperature"], "unique_id", "y"),
        (["series_id", "ts", "temperature"], "series_id", "temperature"),
    ],
)
def test_a_long_file_is_recognised_by_its_names(columns, series_id, value):
    mapping = roles(columns)
    assert (mapping.layout, mapping.series_id, mapping.value) == ("long", series_id, (value,))


def test_a_device_and_a_metric_make_the_series():
    mapping = roles(SIMULATED)
    assert (mapping.device_id, mapping.metric, mapping.series_id) == ("device_id", "metric", None)
    assert (mapping.unit, mapping.seq, mapping.received_at, mapping.layout) == ("unit", "seq", "received_at", "long")


def test_a_wide_file_may_name_its_devices_in_a_column():
    mapping = roles(["device", "ts", "x", "y", "z"])
    assert (mapping.layout, mapping.device_id, mapping.value) == ("wide", "device", ("x", "y", "z"))


@pytest.mark.parametrize(
    ("columns", "ts"),
    [
        (["No", "year", "month", "day", "hour", "TEMP"], ("year", "month", "day", "hour")),
        (["date", "time", "load"], ("date", "time")),
        (["date", "time", "load", "TS"], ("TS",)),
        (["year", "load", "time"], ("time",)),
    ],
)
def test_a_stamp_in_one_column_comes_before_one_that_is_spread(columns, ts):
    assert roles(columns).ts == ts


def test_flags_win_over_names():
    mapping = roles(["time", "ts", "value", "site"], ts=("time",), series_id="site")
    assert (mapping.ts, mapping.series_id, mapping.value, mapping.layout) == (("time",), "site", ("value",), "long")


def test_selected_value_columns_keep_a_wide_file_wide():
    mapping = roles(["date", "HUFL", "OT"], value=("OT",))
    assert (mapping.layout, mapping.value) == ("wide", ("OT",))


def test_a_column_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(DataError, match=r"requires columns that ETTh1\.csv has; got 'when'\. .*'date', 'OT'"):
        infer_mapping(["date", "OT"], ColumnMapping(ts=("when",)), source="ETTh1.csv")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["a", "b"], "a column of timestamps; got 'a', 'b'"),
        (["ts"], "a column of values; got only 'ts'"),
        (["series_id", "ts", "low", "high"], "one column of values beside the id of its series; got 'low', 'high'"),
    ],
)
def test_columns_that_describe_no_readings_are_refused(columns, message):
    with pytest.raises(NoReadingsError, match=message):
        roles(columns)


def test_text_and_row_numbers_of_a_wide_file_are_left_out():
    rows = pl.DataFrame(
        {"No": ["1", "2", "3"], "wind": ["NW", "NA", "SE"], "T": ["1", "NA", "x"], "gap": ["NA", "", None], "kWh": ["7", "8", "9"]}
    )
    mapping, skipped = prune_wide(ColumnMapping(ts=("ts",), value=("No", "wind", "T", "gap", "kWh"), layout="wide"), rows)
    assert (mapping.value, skipped) == (("T", "gap", "kWh"), ("No", "wind"))


@pytest.mark.parametrize(
    ("cells", "found"), [(["1,5", "NA", "-20,25"], "1,5"), (["1.5", "2,5", "3"], None), (["NW", "SE"], None), (["", None], None)]
)
def test_a_column_of_numbers_with_commas_is_told_from_text(cells, found):
    assert decimal_comma(pl.Series(cells, dtype=pl.String)) == found
