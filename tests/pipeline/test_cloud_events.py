"""CloudEvents: the data of an event is read in its own format, and its envelope says what the data leaves open."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.payloads.cloud_events import structured, unwrap
from tests.fuzz import EVENT
from tests.messages import READINGS, STAMP, broken, frame, message, numbers, rows, said


def event(**members):
    return {**EVENT, **members}


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


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.none() | st.text(max_size=9), st.binary(max_size=9))
def test_an_event_in_binary_mode_is_the_same_in_structured_mode(extensions, content_type, payload):
    attributes = {**extensions, **EVENT, "data": "not this", "datacontenttype": "nor this"}
    said, whole = structured(attributes, content_type, payload)
    assert said == "application/cloudevents+json"
    ((found,), _) = unwrap(frame([whole.decode()]))
    assert (found.data, found.content_type, found.seq) == (payload, content_type or "application/json", "7")


@pytest.mark.parametrize(("attributes", "content_type"), [({"id": "7"}, "text/plain"), (EVENT, "Application/CloudEvents+JSON")])
def test_a_message_that_is_no_event_in_binary_mode_stays_as_it_is(attributes, content_type):
    assert structured(attributes, content_type, b"x") == (content_type, b"x")


def test_an_event_inside_an_event_is_refused():
    payload = json.dumps(event(datacontenttype="application/cloudevents+json", data=event(data={"p": 1}))).encode()
    assert broken([message(payload)]) == [("message:0", payload, "unknown_format")]
