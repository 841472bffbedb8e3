"""SenML: whatever is said by base fields or by each record, the resolved readings are the same."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.payloads.senml import decode_senml
from tests.messages import ARRIVED, READINGS, STAMP, STAMP_S, as_found, broken, frame, message, numbers, rows, said

NUMBERS = st.floats() | st.integers() | st.sampled_from([0, -5, 2.5e-6, 2**28, 1e9, 1.7672256e9, 1.767225600000001e9, 1e13, 1e300])
TEXTS = st.text('aé/: "\\}', max_size=4) | st.sampled_from(["d/", "urn:dev:ow:1:x", ""])
MEMBERS = {**dict.fromkeys(("bn", "n", "u", "bu"), TEXTS), **dict.fromkeys(("t", "bt", "v", "bv"), NUMBERS), "vb": st.booleans()}
ODD = {
    "s": NUMBERS,
    "bver": st.integers(9, 11),
    "vs": TEXTS,
    "x": TEXTS,
    "x_": TEXTS,
    "v": TEXTS,
    "n": st.none(),
    "vb": NUMBERS,
    "t": st.booleans(),
}
VALUES = st.fixed_dictionaries({"v": st.sampled_from([1, -2.5, 0.1, 1e-7, 123456789.25])})
USUAL = st.builds(lambda value, others: {**value, **others}, VALUES, st.fixed_dictionaries({}, optional=MEMBERS))
RECORDS = st.one_of(USUAL, USUAL, USUAL, st.fixed_dictionaries({}, optional=MEMBERS), st.fixed_dictionaries({}, optional=ODD))
PACKS = st.lists(RECORDS, max_size=3).map(json.dumps)
SPELLED = st.sampled_from(
    ['[{"v":1,"v":2,"n":"a"}]', '[{"v":1,"n":"a"} , {"v":01}]', "[{}]", "{}", "[1]", '[{"n":"a","v":1}]x', ' [\n{ "vb" : true}]\t']
)


@settings(deadline=None, max_examples=150)
@given(st.lists(PACKS | SPELLED, min_size=1, max_size=6))
def test_all_at_once_and_one_by_one_read_the_same(packs):
    """Shown to fail by times whose microseconds do not fit, by members that come twice, and by numbers of any form."""
    messages = frame(packs)
    at_once, by_one = decode_senml(messages), decode_senml(messages, in_bulk=False)
    number = pl.col("value").cast(pl.Float64)
    assert_frame_equal(at_once.rows.with_columns(number), by_one.rows.with_columns(number), check_row_order=False, check_exact=True)
    assert as_found(at_once)[1] == as_found(by_one)[1]


def test_plain_packs_are_read_all_at_once(monkeypatch):
    """Shown to fail by an expression that matches nothing, and by base values of the pack before."""
    monkeypatch.setattr("pipeline.payloads.senml.parse_items", None)
    pack, other = '[{"bn":"d/","bt":1.7e9,"bu":"W","n":"a","v":1}, {"n":"b","t":-5,"vb":true}]', '[{"n":"c","v":2}]'
    rows = decode_senml(frame([pack, other, pack])).rows
    assert rows["device_id"].to_list() == ["d", "d", None, "d", "d"]


@settings(deadline=None, max_examples=40)
@given(READINGS, st.booleans(), st.integers(0, 9))
def test_readings_come_back_however_their_base_is_chosen(readings, is_based, length):
    """The base name is any beginning of a name, the base time that of the record before."""
    pack = []
    for millis, device, metric, value in readings:
        name, seconds = f"{device}/{metric}", millis // 1000
        if is_based:
            pack.append({"bn": name[:length], "bt": seconds, "n": name[length:], "t": millis / 1000 - seconds, "v": value})
        else:
            pack.append({"n": name, "t": millis / 1000, "v": value})
    assert numbers(rows([message(json.dumps(pack), content_type="application/senml+json")])) == readings


def test_the_example_of_the_standard_is_resolved():
    """RFC 8428, 5.1.3, in the form of its resolved data, 5.1.4."""
    pack = [
        {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e9, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "v": 1.7},
    ]
    at, device = datetime(2010, 6, 8, 18, 1, 16, 1_000, tzinfo=UTC), "urn:dev:ow:10e2073a0108006"
    assert said(json.dumps(pack), "ts", "device_id", "metric", "value", "unit") == [
        (at, device, "voltage", "120.1", "V"),
        (at - timedelta(seconds=5), device, "current", "1.2", "A"),
        (at, device, "current", "1.7", "A"),
    ]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, ARRIVED),
        ({"t": -10}, ARRIVED - timedelta(seconds=10)),
        ({"t": 2**28 - 1}, ARRIVED + timedelta(seconds=2**28 - 1)),
        ({"t": 2**28}, datetime(1978, 7, 4, 21, 24, 16, tzinfo=UTC)),
        ({"bt": STAMP_S - 3, "t": 3}, STAMP),
    ],
)
def test_a_time_below_2_to_the_28_is_relative_to_arrival(record, expected):
    assert said(json.dumps([{"n": "d/m", "v": 1, **record}]), "ts") == [(expected,)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("urn:dev:mac:0024befffe804ff1", ("urn:dev:mac:0024befffe804ff1", "value")),
        ("urn:dev:ow:10e2073a_temp/max", ("urn:dev:ow:10e2073a", "temp/max")),
        ("site/d1/temp", ("site/d1", "temp")),
        ("d1:temp", ("d1", "temp")),
        ("temp", (None, "temp")),
    ],
)
def test_a_name_is_split_into_device_and_metric(name, expected):
    assert said(json.dumps([{"n": name, "v": 1}]), "device_id", "metric") == [expected]


def test_values_booleans_and_sums_are_readings_and_texts_are_none():
    pack = [
        {"bn": "d/", "n": "a", "v": 1, "s": 7},
        {"n": "b", "vb": True},
        {"n": "c", "vs": "x"},
        {"bv": 10, "bs": 100},
        {"n": "a", "v": 1, "s": 8},
    ]
    assert said(json.dumps(pack), "metric", "value") == [("a", "1"), ("a_sum", "7"), ("b", "1"), ("a", "11"), ("a_sum", "108")]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"bver": 11}, "unsupported_version"),
        ({"fancy_": 1}, "unsupported_version"),
        ({"t": "1"}, "unparseable_message"),
        ({"v": True}, "unparseable_message"),
        ({"n": 5}, "unparseable_message"),
        ({"vb": 1}, "unparseable_message"),
    ],
)
def test_a_pack_that_cannot_be_resolved_is_broken_whole(record, code):
    payload = json.dumps([{"n": "d/m", "v": 1}, {"n": "d/m", "v": 1, **record}]).encode()
    assert broken([message(payload)]) == [("message:0", payload, code)]


def test_a_record_without_a_value_is_broken_alone():
    payload = b'[{"n":"d/m","v":1},{"n":"d/m"}]'
    assert broken([message(payload)]) == [("message:0[1]", b'{"n":"d/m"}', "no_reading")]
