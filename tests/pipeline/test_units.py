"""One unit for each metric, and exact conversions into it."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.units import UNITS, UnitRegistry, canonical_name, conversion
from pipeline.schemas import UTC_US
from pipeline.store.known_units import UNIT_INTERVALS

MIDNIGHT, HOUR = datetime(2026, 1, 1, tzinfo=UTC), timedelta(hours=1)
NOON, EVENING = MIDNIGHT + 12 * HOUR, MIDNIGHT + 18 * HOUR
CHANGED = ("d", "t", "degC", MIDNIGHT, NOON), ("d", "t", "degF", NOON, EVENING)
COMPATIBLE = [(a, b) for a in UNITS for b in UNITS if UNITS[a].dimension == UNITS[b].dimension]


def intervals(*rows):
    return pl.DataFrame(list(rows), schema=UNIT_INTERVALS, orient="row")


def sent(hour, unit=None, device="d", metric="t"):
    """One reading of an hour of the day that names this unit."""
    return {"device_id": device, "metric": metric, "ts": MIDNIGHT + hour * HOUR, "unit": unit}


def resolved(registry, *rows):
    frame = pl.DataFrame(rows, schema={"device_id": pl.String, "metric": pl.String, "ts": UTC_US, "unit": pl.String})
    return UnitRegistry({}, registry).resolve(frame)["unit"].to_list()


def readings(*rows):
    schema = {"series_id": pl.String, "metric": pl.String, "value": pl.Float64, "unit": pl.String}
    return pl.DataFrame([(f"d/{metric}", metric, value, unit) for metric, value, unit in rows], schema=schema, orient="row")


@pytest.mark.parametrize(
    ("value", "unit", "to", "expected"),
    [
        (212.0, "F", "degC", 100.0),
        (0.0, "celsius", "K", 273.15),
        (1.5, "kW", "W", 1500.0),
        (1013.25, "hPa", "kPa", 101.325),
        (50.0, "%", "ratio", 0.5),
        (36.0, "km/h", "m/s", 10.0),
        (1.0, "MWh", "kWh", 1000.0),
        (7.0, "widgets", "widgets", 7.0),
    ],
)
def test_known_units_convert(value, unit, to, expected):
    scale, offset = conversion(unit, to)
    assert scale * value + offset == pytest.approx(expected, rel=1e-12, abs=1e-10)


@settings(deadline=None)  # a busy machine is no failure
@given(st.sampled_from(COMPATIBLE), st.floats(-1e6, 1e6))
def test_there_and_back_is_the_same_value(pair, value):
    (scale, offset), (back, back_offset) = conversion(*pair), conversion(*reversed(pair))
    assert back * (scale * value + offset) + back_offset == pytest.approx(value, rel=1e-9, abs=1e-3)


def test_case_matters_where_it_changes_the_unit():
    assert (canonical_name("mW"), canonical_name("MW"), canonical_name("kwh")) == ("mW", "MW", "kWh")


def test_the_first_unit_seen_is_the_metrics_unit():
    first = readings(("t", 20.0, "°C"), ("t", 68.0, "degF"))
    converted, unknown = UnitRegistry({}).learn(first).convert(first)
    assert converted["unit"].to_list() == ["degC", "degC"]
    assert converted["value"].to_list() == pytest.approx([20.0, 20.0])
    assert unknown.is_empty()


def test_declared_units_win_over_stored_ones_and_these_over_new_ones():
    stored = readings(("t", 0.0, "degF"), ("p", 0.0, "hPa"))
    registry = UnitRegistry.of({"t": "C", "load": None}, stored, intervals())
    assert registry.learn(readings(("p", 0.0, "bar"), ("load", 0.0, "kW"))).units == {"t": "degC", "p": "hPa", "load": "kW"}


def test_an_incompatible_unit_is_rejected_and_says_why():
    converted, unknown = UnitRegistry({"t": "degC"}).convert(readings(("t", 1.0, "bar"), ("t", 1.0, "widgets"), ("t", 2.0, None)))
    assert converted.select("value", "unit").rows() == [(2.0, "degC")]
    assert unknown["error_code"].to_list() == ["unknown_unit"] * 2
    assert unknown["error_text"][0] == "The metric t requires a unit that converts to degC; got bar."


def test_series_without_a_metric_do_not_share_a_unit():
    rows = readings(("value", 1.0, "degC"), ("value", 2.0, "bar")).with_columns(series_id=pl.Series(["a", "b"]))
    converted, unknown = UnitRegistry({}).learn(rows).convert(rows)
    assert (converted["unit"].to_list(), len(unknown)) == (["degC", "bar"], 0)


def test_a_metric_that_never_names_a_unit_has_none():
    converted, _ = UnitRegistry({}).convert(readings(("t", 1.0, None)))
    assert converted.rows() == [("d/t", "t", 1.0, None)]


def test_a_reading_without_a_unit_has_the_one_in_force_when_it_was_measured():
    """Shown to fail by an interval that holds its end, and by one that never ends."""
    at = [sent(hour) for hour in (18, -1, 12, 0, 11, 17)]  # in no order
    assert resolved(intervals(*CHANGED), *at) == [None, None, "degF", "degC", "degC", "degF"]
    assert resolved(intervals(("d", "t", "K", MIDNIGHT, None)), sent(999)) == ["K"]


def test_a_reading_keeps_the_unit_that_it_names():
    assert resolved(intervals(*CHANGED), sent(13, "K"), sent(13)) == ["K", "degF"]


def test_an_interval_of_a_device_comes_before_one_of_all_devices():
    """Shown to fail by the other order."""
    registry = intervals(("*", "t", "K", MIDNIGHT, None), *CHANGED)
    assert resolved(registry, sent(13), sent(19), sent(13, device="e"), sent(13, metric="p")) == ["degF", "K", "K", None]


def test_a_resolved_unit_is_converted_like_one_that_was_sent():
    registry = UnitRegistry({"t": "degC"}, intervals(*CHANGED))
    rows = readings(("t", 212.0, None)).with_columns(device_id=pl.lit("d"), ts=pl.lit(NOON, UTC_US))
    converted, _ = registry.convert(registry.resolve(rows))
    assert converted.select("value", "unit").row(0) == (pytest.approx(100.0), "degC")
