"""What counts as an instant, by itself or with a declared zone, and why everything else does not."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.ingest.timestamps import StampRules, compose_stamp, infer_epoch_unit, parse_stamps

NOON = datetime(2016, 7, 1, 12, tzinfo=UTC)
instants = st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (made aware by the strategy)
FACTORS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def read(stamps, **rules):
    column = stamps if isinstance(stamps, pl.Series) else pl.Series(stamps)
    return parse_stamps(column, StampRules(**rules))


def only(stamp, **rules):
    return read([stamp], **rules).row(0)


@given(st.lists(st.sampled_from(["2016-07-01T12:00:00Z", "2016-07-01T12:00:00+02:00", "2016-07-01 07:30", "1467374400", "true", "", None])))
def test_a_stamp_is_read_the_same_among_others_as_alone(stamps):
    rules = {"time_zone": "Europe/Berlin", "epoch_unit": "s"}
    together = read(pl.Series(stamps, dtype=pl.String), **rules).rows()
    assert together == [read(pl.Series([stamp], dtype=pl.String), **rules).row(0) for stamp in stamps]


@pytest.mark.parametrize(
    "stamp",
    [
        "2016-07-01T12:00:00Z",
        "2016-07-01 12:00:00.000000Z",
        "2016-07-01T14:00:00+02:00",
        "2016-07-01 07:30:00 -0430",
        "2016-07-01T14:00+02",
        "2016/07/01 12:00 UTC",
        "20160701T120000Z",
        " 2016-07-01T12:00:00,000Z ",
    ],
)
def test_a_stamp_with_a_zone_needs_no_declaration(stamp):
    assert only(stamp) == (NOON, None)


@pytest.mark.parametrize("stamp", ["2016-07-01 14:00:00", "2016-07-01T14:00", "2016/7/1 14:00:00", "20160701140000", "20160701 1400"])
def test_a_naive_stamp_is_placed_in_the_declared_zone(stamp):
    assert only(stamp, time_zone="Europe/Berlin") == (NOON, None)
    assert only(stamp) == (None, "naive_timestamp")


def test_a_date_alone_is_its_midnight():
    assert only("2016-07-01", time_zone="UTC")[0] == only(date(2016, 7, 1), time_zone="UTC")[0] == NOON - timedelta(hours=12)


def test_mixed_forms_are_read_row_by_row():
    stamps = read(["2016-07-01T12:00:00Z", "2016-07-01 14:00:00", "2016-07-01T08:00:00-04:00"], time_zone="Europe/Berlin")
    assert stamps["stamp"].to_list() == [NOON] * 3


@pytest.mark.parametrize(
    ("stamp", "error"),
    [
        ("2026-10-25 02:30:00", "ambiguous_local_time"),
        ("2026-03-29 02:30:00", "nonexistent_local_time"),
        ("2026-02-30 00:00:00", "unparseable_timestamp"),
        ("2026-01-01T00:00:00+99:00", "unparseable_timestamp"),
        ("soon", "unparseable_timestamp"),
        ("", "missing_timestamp"),
        ("NA", "missing_timestamp"),
        (None, "missing_timestamp"),
    ],
)
def test_what_is_no_instant_says_why(stamp, error):
    assert read(pl.Series([stamp], dtype=pl.String), time_zone="Europe/Berlin").row(0) == (None, error)


@settings(deadline=None)  # a busy machine is no failure
@example(datetime(2082, 3, 26, 17, 31, 32, 609525, tzinfo=UTC), "ns", False)
@given(instants, st.sampled_from(["s", "ms", "us", "ns"]), st.booleans())
def test_epoch_numbers_are_exact_to_the_microsecond(instant, unit, is_text):
    """Shown to fail by reading all numbers as Float64: the example, one of two rows, came out 1 us late (Polars multiplies by 1/1000)."""
    micros = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    number = micros * FACTORS[unit] // 1_000_000
    stamp = read([str(number) if is_text else number] * 2, epoch_unit=unit)["stamp"][0]
    assert timedelta(0) <= instant - stamp < timedelta(seconds=1) / min(FACTORS[unit], 1_000_000)


def test_a_fraction_of_an_epoch_second_is_kept():
    assert only("1467374400.25", epoch_unit="s")[0] == only(1467374400.25, epoch_unit="s")[0] == NOON + timedelta(seconds=0.25)


@pytest.mark.parametrize("number", [10**17, -(10**17), 9.9e300, float("nan")])
def test_a_number_beyond_all_calendars_is_no_stamp(number):
    assert only(number, epoch_unit="s") == (None, "unparseable_timestamp")


@pytest.mark.parametrize("unit", FACTORS)
def test_the_unit_of_epoch_numbers_follows_from_their_median(unit):
    numbers = pl.Series([1_467_374_400 * FACTORS[unit] + i for i in range(3)] + [0])
    assert infer_epoch_unit(numbers) == infer_epoch_unit(numbers.cast(pl.String)) == unit
    assert infer_epoch_unit(pl.Series(["2016-07-01", "20160701"])) is None


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_typed_stamps_keep_their_zone(unit):
    berlin = pl.Series([NOON]).dt.convert_time_zone("Europe/Berlin").cast(pl.Datetime(unit, "Europe/Berlin"))
    assert read(berlin).row(0) == (NOON, None)
    assert read(pl.Series([NOON.replace(tzinfo=None)])).row(0) == (None, "naive_timestamp")


@pytest.mark.parametrize(
    "columns",
    [
        {"Year": ["2016"], "Month": ["7"], "Day": ["1"], "Hour": ["12"]},
        {"year": [2016], "month": [7], "day": [1], "hour": [12], "minute": [0]},
        {"date": ["2016-07-01"], "time": ["12:00:00"]},
    ],
)
def test_a_stamp_is_put_together_from_its_columns(columns):
    rows = pl.DataFrame(columns)
    assert read(compose_stamp(rows, rows.columns), time_zone="UTC").row(0) == (NOON, None)


@pytest.mark.parametrize("rules", [{"time_zone": "Mars/Olympus"}, {"epoch_unit": "minutes"}])
def test_a_zone_or_unit_that_does_not_exist_is_refused(rules):
    with pytest.raises(SettingsError, match="requires"):
        StampRules(**rules)


ALIKE = [
    *("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.Z", "2026-1-1T1:2:3Z", "2026-13-01T00:00:00Z"),
    *("2026-01-01T24:00:00Z", "2016-12-31T23:59:60Z", " 2026-01-01T00:00:00Z", "2026-01-01T00:00:00z", "2026-01-01 00:00:00Z"),
    *("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.5+00:00", "2026-01-01T00:00:00-00:00", "2026-01-01T01:00:00+01:00", "NA", None),
]


@given(st.lists(st.sampled_from(ALIKE), min_size=1, max_size=5))
@example(["2016-12-31T23:59:60Z"])
@example([None])
@settings(max_examples=60, deadline=None)
def test_a_stamp_is_read_the_same_whatever_else_is_in_its_column(stamps):
    """A column of nothing but UTC in the usual form is read in one go; "soon" sends it the long way."""
    column = pl.Series(stamps, dtype=pl.String)
    mixed = parse_stamps(pl.Series([*stamps, "soon"]), StampRules())
    assert parse_stamps(column, StampRules()).equals(mixed.head(len(stamps)))
