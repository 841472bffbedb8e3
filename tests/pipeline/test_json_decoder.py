"""JSON comes back as it was written, by usual names or by pointers; in bulk and one by one it is read to the same result."""

import json

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.payloads.decode import decode
from pipeline.payloads.json_decoder import decode_json, decode_ndjson
from pipeline.payloads.rows import MESSAGES_SCHEMA, Decoded
from pipeline.settings import Route
from tests.messages import READINGS, STAMP, STAMP_S, broken, message, numbers, rows, said

COPIES = 60  # of each text: enough to be parsed in bulk
NAMES = st.sampled_from(
    ["ts", "timestamp", "device_id", "Device", "metric", "value", "unit", "metrics", "temp", "a.b", "é", "date", "time", ":"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["", "21.5", "nan", "true", " 5 ", "}", ',"', "],["])
)
DOCUMENTS = st.dictionaries(NAMES, SCALARS | st.dictionaries(NAMES, SCALARS, max_size=3) | st.lists(SCALARS, max_size=2), max_size=6)
SPELLINGS = st.sampled_from([{}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": 1}])
NUMBERS = [
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1.10",
    "1e5",
    "1E-7",
    "0.00001",
    "12345678901234567",
    "99999999999999999.5",
    "1e99",
    "-1e-99",
    "5e-324",
]
FAULTS = [
    "01",
    "1.",
    ".5",
    "+1",
    "1e400",
    "NaN",
    "-Infinity",
    "123456789012345678901",
    "tru",
    '"a\\"b"',
    '"a',
    "",
    "1 2",
    "{",
    '"\t"',
    "[1]",
]
ROUTES = [
    Route(),
    Route(topic="{device_id}"),
    Route(metrics="/metrics", device_id="/Device"),
    Route(metrics="", ts="/ts"),
    Route(value="/metrics/temp", metric="/metric", ts="/metrics/ts"),
]


def frame(texts) -> pl.DataFrame:
    return pl.DataFrame({"line": range(len(texts)), "payload": [text.encode() for text in texts], "text": texts}, schema=MESSAGES_SCHEMA)


def as_found(decoded: Decoded):
    return [table.sort(pl.all()).rows() for table in (decoded.rows, decoded.broken)]


def written(readings):
    return [dict(zip(("ts", "device_id", "metric", "value"), reading, strict=True)) for reading in readings]


@settings(deadline=None, max_examples=40)
@given(READINGS, st.sampled_from(["objects", "array", "lines"]), SPELLINGS)
def test_readings_come_back_as_they_were_written(readings, form, spelling):
    objects = written(readings)
    assume(form != "lines" or "indent" not in spelling)
    texts = {
        "objects": [json.dumps(each, **spelling) for each in objects],
        "array": [json.dumps(objects, **spelling)],
        "lines": ["\n".join(json.dumps(each, **spelling) for each in objects)],
    }
    assert numbers(rows([message(text) for text in texts[form]])) == readings


@settings(deadline=None, max_examples=60)
@given(st.lists(DOCUMENTS, min_size=1, max_size=4), SPELLINGS, st.sampled_from(ROUTES))
def test_bulk_and_one_by_one_read_the_same(documents, spelling, route):
    """Shown to fail by writing floats with `repr`, and by keeping the good objects of an array that holds a bad one."""
    objects = [json.dumps(document, **spelling) for document in documents]
    texts = [*objects * COPIES, *[f"[{','.join(objects)}]"] * COPIES, "[" + ",".join(objects * COPIES) + "]"]
    assert as_found(decode_json(frame(texts), route)) == as_found(decode_json(frame(texts), route, in_bulk=False))


@settings(deadline=None, max_examples=30)
@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.sampled_from(ROUTES))
def test_bulk_and_one_by_one_read_the_same_lines(documents, route):
    texts = ["\n".join(json.dumps(document) for document in documents * COPIES)] * 2
    assert as_found(decode_ndjson(frame(texts), route)) == as_found(decode_ndjson(frame(texts), route, in_bulk=False))


@pytest.mark.parametrize("number", [*NUMBERS, *FAULTS])
def test_a_number_is_written_alike_in_bulk_and_one_by_one(number):
    """Among good ones, so that their shape is known; alone, and in arrays."""
    good = '{"ts":1,"device_id":"d","metric":"m","value":2}'
    odd = good.replace("2", number)
    texts = [good] * COPIES + [odd] * COPIES + [f"[{good},{odd}]"] * COPIES + [f"[{good},{good}]"] * COPIES
    assert as_found(decode_json(frame(texts), Route())) == as_found(decode_json(frame(texts), Route(), in_bulk=False))


@pytest.mark.parametrize("device", ["", "/dev", "/dev/id", "/dev/id/x", "/none", "/none/id"])
@pytest.mark.parametrize("ts", ["/dev", "/dev/id", "/ts"])
def test_pointers_to_objects_and_beyond_scalars_read_the_same_in_bulk(device, ts):
    """Shown to fail by not asking whether a path is in the shape."""
    devices = ('{"id":"é"}', "7", "{}")
    texts = [f'{{"ts":1,"dev":{each},"value":2}}' for each in devices] * COPIES
    route = Route(device_id=device, ts=ts)
    assert as_found(decode_json(frame(texts), route)) == as_found(decode_json(frame(texts), route, in_bulk=False))


def test_objects_of_one_shape_are_parsed_in_bulk(monkeypatch):
    """Shown to fail by a pattern that matches nothing."""
    monkeypatch.setattr("pipeline.payloads.json_decoder.parse", None)
    monkeypatch.setattr("pipeline.payloads.json_decoder.parse_items", None)
    flat = '{"ts": 1, "device_id": "d", "metric": "m", "value": 1.5}'
    nested = '{"ts": 1, "device_id": "d", "metrics": {"a": 1, "b": 2}}'
    texts = [flat] * COPIES + [nested] * COPIES + [f"[{flat}, {flat}]", f"[{nested},{nested}]"] * COPIES
    assert len(decode_json(frame(texts), Route()).rows) == COPIES * (1 + 2 + 2 + 4)


def test_faults_at_regular_distances_do_not_hide_the_shape_of_the_others(monkeypatch):
    """Shown to fail by a sample of every n-th message, which is bad in each of them: four times slower."""
    good = '{"ts": 1, "device_id": "d", "metric": "m", "value": 1.5}'
    monkeypatch.setattr("pipeline.payloads.json_decoder.lay_out", None)
    texts = [good[:20] if number % 10 == 0 else good for number in range(4000)]
    decoded = decode_json(frame(texts), Route())
    assert (len(decoded.rows), len(decoded.broken)) == (3600, 400)


def test_pointers_reach_into_objects_and_arrays():
    route = Route(ts="/meta/t~1s", device_id="/meta/ids/1", metric="/what", value="/data/v~0", unit="/data/u", quality="/q", seq="/n")
    payload = {"meta": {"t/s": STAMP_S, "ids": ["x", "d1"]}, "what": "power", "data": {"v~": 1.5, "u": "kW"}, "q": 1, "n": 7}
    found = said(json.dumps(payload), "ts", "device_id", "metric", "value", "unit", "quality", "seq", route=route)
    assert found == [(STAMP, "d1", "power", "1.5", "kW", "1", "7")]


def test_metrics_are_the_members_of_an_object_that_are_numbers():
    payload = '{"ts": 1767225600, "device_id": "d", "data": {"a": 1, "b": "2.5", "c": true, "d": "on", "e": null, "f": {}, "g": []}}'
    assert said(payload, "metric", "value", route=Route(metrics="/data")) == [("a", "1"), ("b", "2.5"), ("c", "1")]


def test_a_whole_message_may_be_the_object_of_metrics():
    payload = '{"time": 1767225600, "device": "d", "temperature": 21.5, "state": "on", "battery": 90}'
    found = said(payload, "device_id", "metric", "value", route=Route(metrics=""))
    assert found == [("d", "temperature", "21.5"), ("d", "battery", "90")]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('{"ts":1767225600,"device_id":"d","metric":"m","value":1}', ("d", "m", "1")),
        ('{"Timestamp":1767225600,"Sensor":"d","Variable":"m","Reading":1}', ("d", "m", "1")),
        ('{"time":1767225600,"series_id":"a/d/m","value":1}', ("a/d", "m", "1")),
        ('{"ts":1767225600,"device":"d","power":1}', ("d", "power", "1")),
        ('{"ts":1767225600,"device":"d","values":{"power":1}}', ("d", "power", "1")),
        ('{"ts":1767225600,"device":"a/d","value":1}', ("a/d", "value", "1")),
        ('{"date":"2026-01-01","time":"00:00Z","device":"d","power":1}', ("d", "power", "1")),
    ],
)
def test_usual_names_are_found_as_in_files(payload, expected):
    assert said(payload, "ts", "device_id", "metric", "value") == [(STAMP, *expected)]


def test_an_array_that_is_no_json_as_a_whole_is_broken_whole():
    payload = b'[{"ts":1767225600,"device":"d","p":1},{"ts":1767225600,"device":"d","p":1}'
    messages = [message(payload)] * COPIES + [message(payload + b"x]")] * COPIES
    assert {(cut, code) for _, cut, code in broken(messages)} == {
        (payload, "unparseable_message"),
        (payload + b"x]", "unparseable_message"),
    }


def test_a_bad_line_harms_no_other():
    payload = b'{"ts":1767225600,"device":"d","p":1}\r\n\n{"ts"\n{"ts":1767225600,"device":"d","p":2}\n'
    assert rows([message(payload)])["value"].to_list() == ["1", "2"]
    assert broken([message(payload)]) == [("message:0[1]", b'{"ts"', "unparseable_message")]


def test_each_item_keeps_its_own_bytes():
    items = ['{"ts": 1767225600,  "device":"d","p":1.50}', '{"device":"d","p":2, "ts":1767225600}']
    (batch,) = decode([message(f"[ {items[0]} ,{items[1]}]")], [])
    assert batch.origins["payload"].to_list() == [item.encode() for item in items]


def test_values_filled_in_with_hindsight_are_refused():
    assert broken([message('{"ts":1,"knowledge_time":2,"device":"d","p":1}')])[0][2] == "no_reading"
