"""CloudEvents: the data of an event is read in its own format, and its envelope says what the data leaves open."""

import base64
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.payloads.cloud_events import structured, unwrap
from tests.fuzz import EVENT
from tests.messages import READINGS, STAMP, as_found, broken, frame, message, numbers, rows, said

NAMES = st.sampled_from([*EVENT, "datacontenttype", "data", "x", "a}b"])
TEXTS = st.text('aé\\"{},:\n', max_size=4) | st.sampled_from(["1.0", "7", "٣", "", '"data":', "{}", "text/plain"])
SCALARS = TEXTS | st.integers() | st.floats() | st.booleans() | st.none()
DATA = st.dictionaries(NAMES, SCALARS | st.dictionaries(NAMES, SCALARS, max_size=2), max_size=2)
CHANGES = st.dictionaries(NAMES, TEXTS, max_size=2) | st.dictionaries(NAMES, SCALARS, max_size=1)
EVENTS = st.builds(lambda changes, data: json.dumps({**EVENT, **changes, "data": data}, ensure_ascii=False), CHANGES, DATA | SCALARS)
ENDS = (', "id": "8", "data": {"p": 1}}', ', "data":"x", "data":{}}', ',"data":{"p":01}}', ',"data":{"p":1}}}')
ARABIC = json.dumps({**EVENT, "id": "٣", "data": {}}, ensure_ascii=False)  # a digit for Unicode, and no number here
SPELLED = st.sampled_from([ARABIC, *(json.dumps(EVENT)[:-1] + end for end in ENDS)])


def event(**members):
    return {**EVENT, **members}


def normal(data):
    return repr(json.loads(data)) if data.strip().startswith(b"{") else repr(data)


@settings(deadline=None, max_examples=30)
@given(READINGS, st.booleans(), st.booleans())
def test_readings_come_back_from_one_event_or_a_batch(readings, is_batch, is_base64):
    objects = [dict(zip(("ts", "device_id", "metric", "value"), reading, strict=True)) for reading in readings]
    data = objects if is_batch else [objects]
    encoded = [{"data_base64": base64.b64encode(json.dumps(each).encode()).decode()} if is_base64 else {"data": each} for each in data]
    events = [event(**each) for each in encoded]
    assert numbers(rows([message(json.dumps(events if is_batch else events[0]))])) == readings


def test_the_envelope_says_when_and_who_where_the_data_does_not():
    payload = json.dumps(event(data={"temperature": 21.5}))
    assert said(payload, "ts", "device_id", "metric", "value", "seq") == [(STAMP, "/site/1", "temperature", "21.5", "7")]


def test_the_data_comes_first():
    payload = json.dumps(event(time="2020-01-01T00:00:00Z", data={"ts": "2026-01-01T00:00:00Z", "device": "d", "seq": 3, "p": 1}))
    assert said(payload, "ts", "device_id", "seq") == [(STAMP, "d", "3")]


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("text/plain", "m,device=d power=1 1767225600000000000"),
        ("application/x-ndjson", '{"ts":1767225600,"device":"d","power":1}\n'),
        ("application/json; charset=utf-8", {"ts": 1767225600, "device": "d", "power": 1}),
        ("application/senml+json", [{"n": "d/power", "t": 1767225600, "v": 1}]),
        (None, {"ts": 1767225600, "device": "d", "power": 1}),
    ],
)
def test_the_content_type_of_the_data_picks_its_decoder(content_type, data):
    payload = json.dumps(event(datacontenttype=content_type, data=data))
    ((at, device, metric, value),) = said(payload, "ts", "device_id", "metric", "value")
    assert (at, device, metric.removeprefix("m."), value) == (STAMP, "d", "power", "1")


def test_readings_of_a_batch_are_in_the_order_of_its_events():
    events = [event(data=[{"a": 1}, {"a": 2}]), {"no": "event"}, event(data={"a": 3}), event(data={})]
    found = [message(json.dumps(events))]
    assert rows(found).select("item", "value").rows() == [(0, "1"), (1, "2"), (3, "3")]
    assert [(position, code) for position, _, code in broken(found)] == [
        ("message:0[2]", "unparseable_message"),
        ("message:0[4]", "no_reading"),
    ]


@pytest.mark.parametrize(
    "members",
    [{"specversion": "2.0"}, {"id": ""}, {"source": None}, {"type": 5}, {"time": 5}, {"data_base64": "!"}, {"data": None}],
)
def test_what_is_no_event_is_broken_whole(members):
    payload = json.dumps({**event(data={"p": 1}), **members}).encode()
    assert broken([message(payload)]) == [("message:0", payload, "unparseable_message")]


@settings(deadline=None, max_examples=150)
@given(st.lists(EVENTS | SPELLED, min_size=1, max_size=5))
def test_all_at_once_and_one_by_one_read_the_same(payloads):
    """Shown to fail by members that come twice, by digits of other scripts, and by a text of data as if it were an object."""
    at_once, by_one = unwrap(frame(payloads)), unwrap(frame(payloads), in_bulk=False)
    normalised = pl.col("data").map_elements(normal, pl.String)
    assert_frame_equal(at_once[0].with_columns(normalised), by_one[0].with_columns(normalised), check_row_order=False)
    assert as_found(at_once[1]) == as_found(by_one[1])


def test_plain_events_are_read_all_at_once(monkeypatch):
    """Shown to fail by an expression that matches nothing."""
    monkeypatch.setattr("pipeline.payloads.cloud_events.parse_items", None)
    texts = [json.dumps(event(data={"power": 1, "at": {"room": "}"}}), separators=each) for each in ((",", ":"), (", ", ": "))]
    assert unwrap(frame(texts))[0]["data"].to_list() == [b'{"power":1,"at":{"room":"}"}}', b' {"power": 1, "at": {"room": "}"}}']


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.none() | st.text(max_size=9), st.binary(max_size=9))
def test_an_event_in_binary_mode_is_the_same_in_structured_mode(extensions, content_type, payload):
    attributes = {**extensions, **EVENT, "data": "not this", "datacontenttype": "nor this"}
    said, whole = structured(attributes, content_type, payload)
    assert said == "application/cloudevents+json"
    events, _ = unwrap(frame([whole.decode()]))
    assert events.select("data", "content_type", "seq").row(0) == (payload, content_type or "application/json", "7")


@pytest.mark.parametrize(("attributes", "content_type"), [({"id": "7"}, "text/plain"), (EVENT, "Application/CloudEvents+JSON")])
def test_a_message_that_is_no_event_in_binary_mode_stays_as_it_is(attributes, content_type):
    assert structured(attributes, content_type, b"x") == (content_type, b"x")


def test_an_event_inside_an_event_is_refused():
    payload = json.dumps(event(datacontenttype="application/cloudevents+json", data=event(data={"p": 1}))).encode()
    assert broken([message(payload)]) == [("message:0", payload, "unknown_format")]
