"""Line protocol: what was written comes back, escapes and quotes included; each field that is a number is a reading."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.payloads.line_protocol import decode_line_protocol
from pipeline.settings import Route
from tests.messages import ARRIVED, READINGS, STAMP, as_found, broken, frame, message, numbers, rows, said

# No backslash: before a comma, a space or an equals sign line protocol itself cannot tell it from an escape.
SIGNS = st.sampled_from([*'mdab,= \\"#', *"\n\r\t\x1f\xa0\x00é٣"])
PIECES = SIGNS | st.sampled_from(["m,device=d", " value=", " a=1", ",b=2i", " 17", " -5", "t", "Fa", "1.", "\r\n"])
ROUTES = st.sampled_from([Route(), Route(device_tag="a"), Route(device_tag="none")])
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=6)
LINE = r"[ma](,(a|device|Sensor)=[a1]){0,3} {1,2}(a|value|\x1f|\xa0)=(1|2i|-1\.5e3|t|x|\"\nm b=2\"),?b=1u( -?[0-9]{1,3})? ?[\r\n#]?"
LINES = st.from_regex(LINE, fullmatch=True)
NAMES = NAMES.filter(lambda name: "\\" not in name and not name.startswith(("#", '"')) and '"' not in name and name == name.strip())


def escaped(name: str) -> str:
    return re.sub(r"([,= ])", r"\\\1", name)


@settings(deadline=None, max_examples=40)
@given(READINGS)
def test_readings_come_back_as_they_were_written(readings):
    lines = "\n".join(f"{metric},device={device} value={value!r} {millis}000000" for millis, device, metric, value in readings)
    assert numbers(rows([message(lines)])) == readings


@settings(deadline=None, max_examples=60)
@given(NAMES, NAMES, NAMES, st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8))
def test_escapes_and_quotes_are_read(measurement, device, field, text):
    """A quoted text may hold anything, line breaks included, and is no reading."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    line = f'{escaped(measurement)},host={escaped(device)} {escaped(field)}=1,note="{quoted}" 1767225600000000000'
    found = said(line, "ts", "device_id", "metric", "value", route=Route(format="line_protocol", device_tag="host"))
    metric = measurement if field == "value" else f"{measurement}.{field}"
    assert found == [(STAMP, device, metric, "1")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", "1"), ("-1.5e3", "-1.5e3"), ("2i", "2"), ("3u", "3"), ("t", "1"), ("F", "0"), ("true", "1"), ("False", "0"), ("TRUE", "1")],
)
def test_values_of_every_type_are_numbers(value, expected):
    assert said(f"m,device=d value={value} 1767225600000000000", "value") == [(expected,)]


@pytest.mark.parametrize("value", ["", "abc", "1.5i", "1 2 3", '"open', "nan", "0x10", "--1", "1,"])
def test_a_line_with_a_value_that_is_none_is_broken_whole(value):
    line = f"m,device=d a=1,value={value}".encode()
    assert broken([message(line)], Route(format="line_protocol")) == [("message:0", line, "unparseable_message")]


def test_without_a_stamp_a_line_was_measured_when_it_came():
    assert said("m,device=d value=1", "ts") == [(ARRIVED,)]


@pytest.mark.parametrize(("unit", "stamp"), [("s", "1767225600"), ("ms", "1767225600000"), ("us", "1767225600000000")])
def test_a_route_declares_another_precision(unit, stamp):
    assert said(f"m,device=d value=1 {stamp}", "ts", route=Route(epoch_unit=unit)) == [(STAMP,)]


def test_without_a_tag_of_a_device_measurement_and_tags_are_the_device():
    assert said("cpu,host=a,core=0 usage=1,idle=2", "device_id", "metric") == [
        ("cpu,core=0,host=a", "usage"),
        ("cpu,core=0,host=a", "idle"),
    ]


def test_a_declared_tag_is_the_device():
    found = said("cpu,host=a,core=0 usage=1,value=2", "device_id", "metric", route=Route(device_tag="host"))
    assert found == [("a", "cpu.usage"), ("a", "cpu")]


def test_comments_and_blank_lines_are_nothing_and_a_bad_line_harms_no_other():
    payload = b"# comment\n\nm,device=d value=1\nnot a line\r\nm,device=d value=2\r\n"
    found = [message(payload)]
    assert rows(found)["value"].to_list() == ["1", "2"]
    assert broken(found) == [("message:0[1]", b"not a line", "unparseable_message")]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(PIECES | LINES, max_size=12).map("".join), min_size=1, max_size=4), ROUTES)
def test_all_at_once_and_one_by_one_read_the_same(texts, route):
    """Shown to fail by Python's blanks in Rust's words, by splitting quoted texts, and by an item for each comment."""
    messages = frame(texts)
    assert as_found(decode_line_protocol(messages, route)) == as_found(decode_line_protocol(messages, route, in_bulk=False))


def test_plain_lines_are_read_all_at_once(monkeypatch):
    """Shown to fail by an expression that matches nothing."""
    monkeypatch.setattr("pipeline.payloads.line_protocol._read_line", None)
    text = "cpu,host=a usage=1,idle=2i,on=true 17\r\n# comment\n\npower,device=d value=-1.5e3"
    assert len(decode_line_protocol(frame([text] * 3), Route()).rows) == 3 * 4


def test_texts_alone_are_no_reading():
    assert broken([message(b'm,device=d state="on"')]) == [("message:0", b'm,device=d state="on"', "no_reading")]
