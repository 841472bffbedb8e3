"""Sparkplug B: births name what data messages abbreviate, whatever range of messages is decoded."""

import logging
import re
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.payloads.decode import decode
from pipeline.payloads.message import Message
from pipeline.payloads.sparkplug import births_for_it_alone, needed_births
from pipeline.payloads.sparkplug_session import is_birth, is_certificate
from pipeline.settings import Route
from tests.messages import READINGS, STAMP, STAMP_S, broken, message, numbers, rows, sparkplug

DOUBLE, INT32, BOOLEAN, STRING = 10, 3, 11, 12


def born(session: int) -> Message:
    """Return the birth of a node that begins a session, with the metric m under the alias 1."""
    metrics = [{"name": b"bdSeq", "datatype": 4, "long_value": session}, {"name": b"m", "alias": 1, "datatype": DOUBLE, "is_null": True}]
    return sparkplug("NBIRTH", *metrics)


def died(session: int) -> Message:
    """Return the death of a node, of a session."""
    return sparkplug("NDEATH", {"name": b"bdSeq", "datatype": 4, "long_value": session})


@settings(deadline=None, max_examples=40)
@given(READINGS, st.booleans())
def test_readings_come_back_by_name_or_by_alias(readings, is_aliased):
    messages = []
    for number, (millis, device, metric, value) in enumerate(readings):
        birth = {"name": metric.encode(), "alias": number, "datatype": DOUBLE, "is_null": True}
        named = {"alias": number} if is_aliased else {"name": metric.encode()}
        messages.append(sparkplug("DBIRTH", birth, device=device))
        messages.append(sparkplug("DDATA", {**named, "double_value": value, "timestamp": millis}, device=device))
    assert numbers(rows(messages)) == [(millis, f"plant/gateway/{device}", metric, value) for millis, device, metric, value in readings]


@pytest.mark.parametrize("split", [1, 2, 3, 4])
def test_a_range_and_the_births_before_it_give_what_the_whole_gives(split):
    """What a restart needs: aliases are made again from the births. Shown to fail by leaving out the births."""
    named = [{"name": name, "alias": 1, "datatype": INT32, "int_value": 1} for name in (b"power", b"voltage")]
    data = {"alias": 1, "int_value": 2}
    messages = [sparkplug("NBIRTH", named[0]), sparkplug("NDATA", data), sparkplug("NBIRTH", named[1]), sparkplug("NDATA", data)]
    births = [each for each in messages[:split] if is_birth(each.topic)][-1:]
    whole = rows(messages)["metric"].to_list()
    assert whole == ["power", "power", "voltage", "voltage"]
    assert (rows(messages[split:], births=births)["metric"].to_list() if split < 4 else []) == whole[split:]


KINDS = ["NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH"]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 1), st.booleans()), min_size=1, max_size=9))
@example([("NBIRTH", 1, True), ("NDEATH", 1, True), ("NDEATH", 0, True), ("NDATA", 1, True)])
@example([("DBIRTH", 1, True), ("NBIRTH", 1, False), ("DDATA", 1, True)])
def test_what_is_read_does_not_depend_on_where_ranges_begin(kinds):
    """Shown to fail by a death that deletes what is known, and by births whose payload is none and which are left out."""
    messages = []
    for number, (kind, session, is_sound) in enumerate(kinds):
        named = {"name": b"m%d" % number, "datatype": INT32} if "BIRTH" in kind else {}
        metrics = [{"name": b"bdSeq", "datatype": 4, "long_value": session}, {"alias": session, "int_value": number, **named}]
        sound = sparkplug(kind, *metrics, device="d" if kind[0] == "D" else None)
        messages.append(sound if is_sound or "DATA" in kind else replace(sound, payload=b"\xff"))
    whole = rows(messages)
    for split in range(1, len(messages)):
        newest = {each.topic: at for at, each in enumerate(messages[:split]) if is_certificate(each.topic)}
        found = rows(messages[split:], births=[messages[at] for at in sorted(newest.values())])
        assert found.equals(whole.filter(pl.col("line") >= split).with_columns(pl.col("line") - split))


def test_after_a_death_nothing_is_read_by_the_births_before_it():
    """Shown to fail by births that no death ends, and by heeding the will of a connection that the node gave up before."""
    birth, data = born(1), sparkplug("NDATA", {"alias": 1, "double_value": 1.0})
    for died_of, expected in ((0, 1), (1, 0)):
        assert len(rows([birth, died(died_of), data])) == expected
        assert len(rows([data], births=[birth, died(died_of)])) == expected
    assert len(rows([birth, died(1), born(2), data])) == 1


def test_the_death_of_a_device_ends_its_metrics_alone():
    births = [sparkplug("DBIRTH", {"name": b"m", "alias": at, "datatype": DOUBLE, "is_null": True}, device=f"d{at}") for at in (1, 2)]
    data = [sparkplug("DDATA", {"alias": at, "double_value": 1.0}, device=f"d{at}") for at in (1, 2)]
    assert rows([*births, sparkplug("DDEATH", device="d1"), *data])["device_id"].to_list() == ["plant/gateway/d2"]


def test_what_lacks_a_birth_says_how_to_get_one():
    (batch,) = decode([sparkplug("NDATA", {"alias": 7, "double_value": 1.0})], [])
    assert re.search(r"sparkplug_rebirth.*replay-quarantine --accept missing_birth", batch.broken["error_text"].item())


def test_an_alias_without_a_birth_is_broken_and_not_guessed():
    lost = sparkplug("NDATA", {"alias": 7, "double_value": 1.0})
    assert broken([lost]) == [("message:0", lost.payload, "missing_birth")]


def test_the_birth_of_a_node_ends_the_aliases_of_its_devices():
    birth = sparkplug("DBIRTH", {"name": b"a", "alias": 1, "datatype": DOUBLE, "is_null": True}, device="d")
    data = sparkplug("DDATA", {"alias": 1, "double_value": 1.0}, device="d")
    assert len(rows([birth, data])) == 1
    assert len(rows([birth, sparkplug("NBIRTH"), data])) == 0


@pytest.mark.parametrize(
    ("datatype", "field", "sent", "expected"),
    [
        (1, "int_value", 2**32 - 1, "-1"),
        (1, "int_value", 255, "-1"),
        (2, "int_value", 2**15, "-32768"),
        (INT32, "int_value", 2**31 - 1, "2147483647"),
        (4, "long_value", 2**64 - 5, "-5"),
        (5, "int_value", 255, "255"),
        (7, "int_value", 2**32 - 1, "4294967295"),
        (8, "long_value", 2**64 - 1, "18446744073709551615"),
        (9, "float_value", 1.5, "1.5"),
        (DOUBLE, "double_value", 1e-7, "0.0000001"),
        (BOOLEAN, "boolean_value", True, "1"),
    ],
)
def test_numbers_are_read_by_their_datatype(datatype, field, sent, expected):
    assert rows([sparkplug("NDATA", {"name": b"m", "datatype": datatype, field: sent})])["value"].to_list() == [expected]


def test_a_whole_number_without_a_datatype_is_not_guessed():
    """-1 is sent as 4294967295: only its type tells them apart."""
    lost = sparkplug("NDATA", {"name": b"m", "int_value": 2**32 - 1})
    assert broken([lost]) == [("message:0", lost.payload, "missing_birth")]


def test_nulls_texts_and_metrics_of_the_session_are_no_readings():
    metrics = [
        {"name": b"null", "datatype": DOUBLE, "is_null": True},
        {"name": b"text", "datatype": STRING, "string_value": b"on"},
        {"name": b"date", "datatype": 13, "long_value": 1},
        {"name": b"bdSeq", "datatype": 4, "long_value": 1},
        {"name": b"Node Control/Rebirth", "datatype": BOOLEAN, "boolean_value": False},
        {"name": b"power", "datatype": DOUBLE, "double_value": 1.0, "is_historical": True, "timestamp": STAMP_S * 1000},
    ]
    assert rows([sparkplug("NBIRTH", *metrics)]).select("ts", "device_id", "metric").rows() == [(STAMP, "plant/gateway", "power")]


def test_births_of_one_route_name_the_metrics_of_another():
    """Shown to fail by decoding each route by itself."""
    birth = sparkplug("DBIRTH", {"name": b"m", "alias": 1, "datatype": INT32, "is_null": True}, device="d")
    found = rows([birth, sparkplug("DDATA", {"alias": 1, "int_value": 2}, device="d")], Route(topic="spBv1.0/+/DDATA/+/{device_id}"))
    assert found.select("device_id", "metric", "value").rows() == [("d", "m", "2")]


@pytest.mark.parametrize(
    ("datatype", "field", "sent"), [(INT32, "double_value", 1.5), (BOOLEAN, "int_value", 1), (DOUBLE, "string_value", b"1")]
)
def test_a_value_of_another_type_than_its_metric_has_is_broken_alone(datatype, field, sent):
    """Shown to fail by leaving it out in silence."""
    good = {"name": b"g", "datatype": 9, "double_value": 1.5}
    odd = sparkplug("NDATA", {"name": b"m", "datatype": datatype, field: sent}, good)
    assert rows([odd]).select("item", "metric", "value").rows() == [(1, "g", "1.5")]
    assert broken([odd]) == [("message:0[0]", odd.payload, "unparseable_message")]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["NBIRTH", "DBIRTH", "NDATA", "DDATA"]), st.integers(1, 2), st.booleans()), max_size=8))
def test_a_message_alone_is_read_as_it_was_among_the_others(kinds):
    """What a replay needs. Shown to fail by births that forget nothing, and by leaving out those of the device."""
    messages = []
    for number, (kind, alias, is_typed) in enumerate(kinds):
        named = {"name": b"m%d" % number, "datatype": INT32} if "BIRTH" in kind else {"datatype": INT32} if is_typed else {}
        messages.append(sparkplug(kind, {"alias": alias, "int_value": number, **named}, device="d" if kind[0] == "D" else None))
    needed = needed_births(list(enumerate(messages)), [], range(len(messages)))
    for number, each in enumerate(messages):
        one = [*births_for_it_alone(each, needed.get(number)), each]
        whole = rows(messages).filter(line=number)
        assert rows([*messages, *one]).filter(line=len(messages) + len(one) - 1).drop("line").equals(whole.drop("line"))


@pytest.mark.parametrize(("code", "expected"), [(192, "0"), (500, "500"), (0, "-1")])
def test_a_bad_quality_is_never_ours_for_good(code, expected):
    quality = {"keys": [b"Quality"], "values": [{"type": INT32, "int_value": code}]}
    found = rows([sparkplug("NDATA", {"name": b"m", "datatype": DOUBLE, "double_value": 1.0, "properties": quality})])
    assert found["quality"].to_list() == [expected]


@pytest.mark.parametrize("topic", ["spBv1.0/plant/NDEATH/gateway", "spBv1.0/STATE/host", "spBv1.0/plant/NCMD/gateway", "spBv1.0/plant"])
def test_messages_about_the_session_are_accounted_for(topic):
    payload = sparkplug("NDATA", {"name": b"m", "datatype": DOUBLE, "double_value": 1.0}).payload
    assert broken([message(payload, topic=topic)]) == [("message:0", payload, "no_reading")]


def test_a_topic_template_may_name_the_device():
    data = sparkplug("DDATA", {"name": b"m", "datatype": DOUBLE, "double_value": 1.0}, device="d")
    assert rows([data], Route(topic="spBv1.0/{_group}/+/{_node}/{device_id}"))["device_id"].to_list() == ["d"]


@pytest.mark.parametrize(("numbers", "missing"), [((0, 1, 2), 0), ((255, 0, 1), 0), ((0, 2, 5), 3), ((254, 1), 2)])
def test_gaps_of_the_sequence_numbers_are_counted(numbers, missing, caplog):
    caplog.set_level(logging.WARNING)
    metric = {"name": b"m", "datatype": DOUBLE, "double_value": 1.0}
    assert len(rows([sparkplug("NDATA", metric, seq=number) for number in numbers])) == len(numbers)
    assert [record.args[0] for record in caplog.records] == ([missing] if missing else [])


def test_the_death_of_a_device_has_a_sequence_number_too(caplog):
    """Shown to fail by counting births and data alone: each death was a gap."""
    metric = {"name": b"m", "datatype": DOUBLE, "double_value": 1.0}
    rows([sparkplug("NDATA", metric, seq=4), sparkplug("DDEATH", device="d", seq=5), sparkplug("NDATA", metric, seq=6)])
    assert not caplog.records
