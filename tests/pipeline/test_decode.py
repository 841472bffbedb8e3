"""Whatever the bytes are, nothing raises and nothing is lost; topics, arrival and epoch numbers complete what a payload says."""

import json
import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.timestamps import StampRules
from pipeline.ingest.validate import Rules, validate
from pipeline.payloads.decode import MAPPING, decode
from pipeline.settings import Route
from tests.fuzz import KNOWN_TO_BREAK, VALID, fuzz_payloads, mutated
from tests.messages import ARRIVED, STAMP, broken, message, rows, said, unaccounted

SPARKPLUG_TOPIC = "spBv1.0/plant/NDATA/gateway"
FORMATS = ("json", "ndjson", "line_protocol", "senml", "cloud_events", "sparkplug")
ROUTES = [Route(topic=f"forced/{name}", format=name) for name in FORMATS]
TOPICS = ["a/b", SPARKPLUG_TOPIC, *(route.topic for route in ROUTES)]


def fuzzed(payloads):
    """Spread payloads over topics that force each format, or none."""
    return [message(payload, topic=TOPICS[number % len(TOPICS)]) for number, payload in enumerate(payloads)]


def test_no_messages_give_no_batches():
    assert decode([], []) == []


def test_ten_thousand_fuzzed_payloads_are_all_accounted_for():
    """Shown to fail by leaving out `unanswered` in `as_batch`, and by catching only ValueError in `parse`."""
    assert unaccounted(fuzzed(fuzz_payloads(1, 10_000)), *ROUTES) == set()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=20), st.integers(0, 7))
def test_arbitrary_bytes_are_accounted_for_in_every_format(payloads, shift):
    assert unaccounted(fuzzed([*[b""] * shift, *payloads]), *ROUTES) == set()


@pytest.mark.parametrize("name", VALID)
def test_a_good_payload_of_each_format_that_is_cut_anywhere_is_accounted_for(name):
    payload = VALID[name]
    topic = SPARKPLUG_TOPIC if name == "sparkplug" else "a/b"
    assert unaccounted([message(payload[:end], topic=topic) for end in range(len(payload))]) == set()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(VALID)), st.integers(0, 2**32))
def test_mutated_payloads_harm_no_other_message(name, seed):
    source = random.Random(seed)
    topic = SPARKPLUG_TOPIC if name == "sparkplug" else "a/b"
    good = message(VALID["json"])
    bad = [message(mutated(source, VALID[name]), topic=topic) for _ in range(30)]
    mixed = rows([good, *bad, good])
    assert mixed.filter(pl.col("line").is_in([0, 31])).drop("line").rows() == rows([good, good]).drop("line").rows()


@pytest.mark.parametrize("payload", KNOWN_TO_BREAK, ids=lambda payload: repr(payload[:30]))
def test_what_breaks_parsers_is_accounted_for_and_passes_validation(payload):
    messages = [message(payload, topic=topic) for topic in TOPICS]
    assert unaccounted(messages, *ROUTES) == set()
    rules = Rules(ARRIVED, timedelta(minutes=5), 2001, "unnamed", StampRules())
    for batch in decode(messages, ROUTES):
        verdict = validate(batch, MAPPING, rules)
        assert len(verdict.accepted) + len(verdict.rejected) == len(batch.rows)


@pytest.mark.parametrize("depth", [15, 16, 17, 100, 300, 900, 960, 980, 990, 995, 1000, 1100])
def test_no_depth_of_nesting_raises(depth):
    """Shown to fail by `shape_of` that looks into every object."""
    deep = ['{"a":' * depth + "1" + "}" * depth, "[" * depth + "]" * depth]
    payloads = [json.dumps({"ts": 1, "device": "d", "v": 1})[:-1] + f', "deep": {each}}}' for each in deep]
    events = [VALID["cloud_event"].decode().replace("21.5", each) for each in deep]
    routes = [Route(topic="pointer", device_id="/deep", value="/v"), *ROUTES]
    messages = [message(each, topic=topic) for each in (*deep, *payloads, *events) for topic in ("pointer", *TOPICS)]
    assert unaccounted(messages * 2, *routes) == set()


@pytest.mark.parametrize("num_members", [10, 64, 65, 1_000])
def test_no_number_of_members_raises(num_members):
    """Shown to fail by a shape of any size: its regular expression is too big."""
    payload = json.dumps({"ts": STAMP.timestamp(), "device": "d", **{f"metric {number}": number for number in range(num_members)}})
    assert len(rows([message(payload)] * 60)) == 60 * num_members


def test_what_cannot_be_read_is_kept_whole():
    payload = b"\xff no format \x00"
    assert broken([message(payload)]) == [("message:0", payload, "unknown_format")]


def test_there_is_one_batch_for_each_format():
    messages = [message(VALID[name]) for name in ("json", "senml", "json_array", "line_protocol", "cloud_event", "ndjson")]
    assert sorted(set(batch.origins["line"]) for batch in decode(messages, [])) == [{0, 2}, {1}, {3}, {4}, {5}]


def test_every_valid_payload_gives_readings_that_pass_validation():
    messages = [message(payload, topic=SPARKPLUG_TOPIC if name == "sparkplug" else "a/b") for name, payload in VALID.items()]
    rules = Rules(datetime(2027, 1, 1, tzinfo=UTC), timedelta(minutes=5), 2001, "unnamed", StampRules())
    verdicts = [validate(batch, MAPPING, rules) for batch in decode(messages, [])]
    assert sum(len(verdict.rejected) for verdict in verdicts) == 0
    assert sum(len(verdict.accepted) for verdict in verdicts) == 18


def test_readings_of_one_message_are_numbered_and_a_single_one_is_not():
    messages = [message(VALID["json"]), message(VALID["json_nested"]), message(b'[{"ts": 1767225600, "device": "d", "p": 1}, 7, "x"]')]
    assert rows(messages).select("line", "item").rows() == [(0, None), (1, 0), (1, 1), (2, 0)]
    assert broken(messages) == [("message:2[1]", b"7", "unparseable_message"), ("message:2[2]", b'"x"', "unparseable_message")]


@pytest.mark.parametrize("payload", [b"[1, 2, 3]", b"1\n2\n3", b'[{"a": "b"}, {"b": "c"}]', b'{"x"\n{"y"\n', b"[]"])
def test_a_message_of_which_nothing_is_good_is_broken_once(payload):
    """Shown to fail by leaving out `_whole`."""
    ((position, cut, _),) = broken([message(payload)], Route(format="ndjson" if b"\n" in payload else "json"))
    assert (position, cut) == ("message:0", payload)


def test_a_topic_names_device_and_metric():
    route = Route(topic="site/{_site}/{device_id}/{metric}")
    found = said('{"ts": 1767225600, "value": 21.5}', "device_id", "metric", "value", route=route, topic="site/b/d1/temperature")
    assert found == [("d1", "temperature", "21.5")]


def test_a_bare_number_is_the_value_of_its_topic():
    route = Route(topic="site/{device_id}/{metric}", stamp_on_arrival=True)
    assert said("21.5", "ts", "device_id", "metric", "value", route=route, topic="site/d1/power") == [(ARRIVED, "d1", "power", "21.5")]


def test_the_first_route_that_fits_reads_a_message():
    routes = [Route(topic="a/+", value="/x"), Route(topic="a/#", value="/y")]
    payload = '{"ts": 1, "device_id": "d", "metric": "m", "x": 1, "y": 2}'
    messages = [message(payload, topic=topic) for topic in ("a/b", "a/b/c", "a")]
    assert rows(messages, *routes)["value"].to_list() == ["1", "2", "2"]


def test_a_reading_without_a_stamp_is_left_without_unless_its_route_says_otherwise():
    payload = '{"device_id": "d", "metric": "m", "value": 1}'
    assert said(payload, "ts") == [(None,)]
    assert said(payload, "ts", route=Route(stamp_on_arrival=True)) == [(ARRIVED,)]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([1, 10**3, 10**6, 10**9]), min_size=1, max_size=5))
def test_each_epoch_number_is_read_by_its_own_magnitude(scales):
    payload = json.dumps([{"ts": 1_767_225_600 * scale, "device_id": "d", "metric": "m", "value": 1} for scale in scales])
    assert said(payload, "ts") == [(STAMP,)] * len(scales)


def test_a_declared_unit_wins_over_magnitude():
    payload = '{"ts": 1767225600, "device_id": "d", "metric": "m", "value": 1}'
    assert said(payload, "ts", route=Route(epoch_unit="ms")) == [(datetime(1970, 1, 21, 10, 53, 45, 600_000, tzinfo=UTC),)]


def test_one_stamp_that_cannot_be_read_leaves_the_others_readable():
    payload = (
        '[{"ts": 1767225600, "device_id": "d", "metric": "m", "value": 1}, {"ts": "soon", "device_id": "d", "metric": "m", "value": 1}]'
    )
    (batch,) = decode([message(payload)], [])
    assert batch.rows["ts"].to_list() == ["2026-01-01T00:00:00.000000Z", "soon"]


def test_received_at_is_of_the_message_unless_a_gateway_stamped_it():
    payload = '[{"ts": 1767225600, "device": "d", "p": 1}, {"ts": 1767225600, "device": "d", "p": 1, "arrived_at": "2026-01-01T00:00:05Z"}]'
    assert said(payload, "received_at") == [(ARRIVED,), (STAMP + timedelta(seconds=5),)]
