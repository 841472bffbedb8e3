"""Routes fit topics as MQTT filters do, and the format of a message is what its route, content type, topic or bytes say."""

import polars as pl
import pytest
from pydantic import ValidationError

from pipeline.payloads.choose import charset_of, named_format, route_of, sniff
from pipeline.settings import Route
from tests.fuzz import VALID
from tests.messages import STAMP, broken, message, said

READING = '{"ts":1767225600,"device":"d","größe":1}'


@pytest.mark.parametrize(
    ("template", "topic", "expected"),
    [
        ("#", "a/b", {}),
        ("a/#", "a", {}),
        ("a/#", "ab", None),
        ("+/b", "a/b", {}),
        ("+/b", "a/c/b", None),
        ("+", "", {}),
        ("a.b", "axb", None),
        ("{device_id}/{metric}", "d/m", {"device_id": "d", "metric": "m"}),
        ("{device_id}/{metric}", "d/m/x", None),
        ("{device_id}", "", None),
        ("site-{_site}/{device_id}.json", "site-7/d1.json", {"device_id": "d1"}),
        ("{device_id}/\ud800", "\udfff/\ud800", {"device_id": "?"}),
    ],
)
def test_a_template_fits_whole_topics(template, topic, expected):
    number, found = route_of(topic, [Route(topic=template)])
    assert (found if number == 0 else None) == expected


@pytest.mark.parametrize("topic", ["", "a+", "a#", "#/a", "{", "{a}/{a}", "{a b}", "a/+b"])
def test_a_template_that_mqtt_would_not_know_is_refused(topic):
    with pytest.raises(ValidationError, match="topic requires levels such as"):
        Route(topic=topic)


@pytest.mark.parametrize("pointer", ["a", "/a~", "/~2", "#/a"])
def test_what_is_no_pointer_is_refused(pointer):
    with pytest.raises(ValidationError, match="a JSON pointer requires"):
        Route(ts=pointer)


@pytest.mark.parametrize("other", [{"value": "/v"}, {"metric": "/m"}, {"topic": "{metric}"}])
def test_metrics_have_names_of_their_own(other):
    with pytest.raises(ValidationError, match="metrics names the metrics"):
        Route(metrics="/a", **other)


@pytest.mark.parametrize(
    ("route", "content_type", "topic", "expected"),
    [
        (Route(format="senml"), "application/x-ndjson", "spBv1.0/g/NDATA/n", "senml"),
        (Route(), "Application/X-NDJSON; charset=utf-8", "a", "ndjson"),
        (Route(), "application/cloudevents-batch+json", "a", "cloud_events"),
        (Route(), "application/json", "a", None),
        (Route(), "text/plain", "a", None),
        (Route(), None, "spBv1.0/g/NDATA/n", "sparkplug"),
        (Route(), None, "spBv1.0", None),
    ],
)
def test_a_route_comes_before_the_content_type_and_that_before_the_topic(route, content_type, topic, expected):
    assert named_format(route, content_type, topic) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((VALID[name].decode(), name.partition("_")[0]) for name in ("json", "json_array", "json_nested", "ndjson", "senml")),
        (VALID["line_protocol"].decode(), "line_protocol"),
        (VALID["cloud_event"].decode(), "cloud_events"),
        (VALID["cloud_events"].decode(), "cloud_events"),
        (' {\n "ts": 1,\n "x": {"y": 1}\n}\n', "json"),
        ('[\n{"ts": 1},\n{"ts": 2}\n]', "json"),
        ('[{"n": 5, "name": "x"}]', "json"),
        ("# comment\nm value=1", "line_protocol"),
        ("-1.5e3\n", "json"),
        ("1a", None),
        ("", None),
        ("hello world", None),
    ],
)
def test_bytes_show_their_format(text, expected):
    assert pl.DataFrame({"text": [text]}).select(sniff(pl.col("text"))).item() == expected


@pytest.mark.parametrize("charset", ["utf-8", '"UTF-8"', "'latin-1'", "ISO-8859-1", "windows-1252", "utf-16", "UTF-16LE"])
def test_text_is_read_in_the_character_set_of_its_content_type(charset):
    content_type = f"application/json; charset={charset}"
    payload = READING.encode(charset_of(content_type))
    assert said(payload, "ts", "metric", content_type=content_type) == [(STAMP, "größe")]


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "hex", "rot13", "idna", "none such", "'koi8-r'", ""])
def test_other_character_sets_are_not_read(charset):
    other = message(READING, content_type=f"application/json; charset={charset}")
    assert [code for *_, code in broken([other])] == ["unknown_format"]


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert said(b"\xef\xbb\xbf" + READING.encode(), "metric") == [("größe",)]
