"""InfluxDB line protocol: `measurement,tag=value field=value,field=value timestamp`, a line for each instant of a device.

Called by `decode.py`.
"""

import re
from collections.abc import Iterator

import polars as pl

from pipeline.ingest.mapping import KNOWN
from pipeline.payloads.rows import Decoded, Found, Place
from pipeline.settings import Route

NOT_UTF8 = ("unparseable_message", "A message in line protocol requires text in UTF-8; got other bytes.")
NO_LINE = ("unparseable_message", "A line requires measurement,tag=value field=value timestamp; got something else.")
NO_QUANTITY = ("no_reading", "A line requires at least one field that is a number; got texts alone.")

# Possessive repeats: a text is given up in one pass, however long it is.
_NAME = r"(?:\\[^\n]|[^,=\s\\]|\\)++"  # a tag or a field: comma, equals sign and space need a backslash
_MEASUREMENT = r"(?:\\[^\n]|[^,\s\\]|\\)++"  # here an equals sign needs none
_TAG = rf",({_NAME})=({_NAME})"
_STRING = r'"(?:\\.|[^"\\])*+"'  # may hold a line break
_FIELD = rf'({_NAME})=({_STRING}|[^,\s"]++)'
_LINE = re.compile(
    rf"[ ]*+(?P<measurement>(?!\#){_MEASUREMENT})(?P<tags>(?:{_TAG})*+)[ ]++"
    rf"(?P<fields>{_FIELD}(?:,{_FIELD})*+)(?:[ ]++(?P<stamp>-?\d++))?[ ]*+\r?(?:\n|\Z)",
    re.DOTALL,
)
_TAGS, _FIELDS = re.compile(_TAG, re.DOTALL), re.compile(_FIELD, re.DOTALL)
_NO_DATA = re.compile(r"[ \t]*+(?:\#[^\n]*+)?\r?(?:\n|\Z)")  # blank, or a comment
_NUMBER = re.compile(r"([+-]?\d+)[iu]|([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_BOOLEANS = {"t": "1", "true": "1", "f": "0", "false": "0"}
_ESCAPED = re.compile(r"\\([,= ])")


def decode_line_protocol(messages: pl.DataFrame, route: Route) -> Decoded:
    """Decode lines; each field that is a number or a boolean is a reading, texts are none.

    Args:
        messages: as `MESSAGES_SCHEMA`.
        route: the tag that names the device; by default a usual one, else the measurement and all tags name it.

    Returns:
        Readings with stamps as they are, which are nanoseconds unless the route says otherwise.
    """
    found = Found()
    for line, payload, text in messages.select("line", "payload", "text").iter_rows():
        if text is None:
            found.refuse(Place(line, None, payload), *NOT_UTF8)
            continue
        for item, (cut, match) in enumerate(_lines(text)):
            place = Place(line, item, cut.encode())
            if match is None:
                found.refuse(place, *NO_LINE)
            else:
                _read_line(found, place, match, route.device_tag)
    return found.decoded()


def _lines(text: str) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Yield each line that is no comment; after one that cannot be read, go on behind its end."""
    at = 0
    while at < len(text):
        nothing = _NO_DATA.match(text, at)
        if nothing is not None:
            at = nothing.end()
            continue
        match = _LINE.match(text, at)
        end = match.end() if match is not None else (text.find("\n", at) + 1 or len(text))
        yield text[at:end].rstrip("\r\n"), match
        at = end


def _read_line(found: Found, place: Place, match: re.Match[str], device_tag: str | None) -> None:
    measurement = _unescaped(match["measurement"])
    tags = {_unescaped(key): _unescaped(value) for key, value in _TAGS.findall(match["tags"])}
    fields = _FIELDS.findall(match["fields"])
    numbers = [(_unescaped(key), _number(value)) for key, value in fields if not value.startswith('"')]
    if any(number is None for _, number in numbers):
        found.refuse(place, *NO_LINE)
        return
    if not numbers:
        found.refuse(place, *NO_QUANTITY)
    name = device_tag or next((tag for tag in tags if tag.lower() in KNOWN["device_id"]), None)
    for key, number in numbers:
        if name is None:
            device = ",".join([measurement, *(f"{tag}={tags[tag]}" for tag in sorted(tags))])
            found.add(place, ts=match["stamp"], device_id=device, metric=key, value=number)
        else:  # a device may send several measurements with fields of one name
            metric = measurement if key == "value" else f"{measurement}.{key}"
            found.add(place, ts=match["stamp"], device_id=tags.get(name), metric=metric, value=number)


def _number(value: str) -> str | None:
    """Return the number that a field holds, a boolean as 1 or 0; None where it is neither."""
    match = _NUMBER.fullmatch(value)
    return _BOOLEANS.get(value.lower()) if match is None else match[1] or match[2]


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(r"\1", name) if "\\" in name else name
