"""JSON one message at a time: parsed without ever raising, cut into the bytes of its items, and written as text.

Called by the JSON formats, for what cannot be parsed in bulk.
"""

import json
import re
from collections.abc import Iterator

import numpy as np

from pipeline.payloads.rows import Place

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
Path = tuple[str, ...]  # names from the top of a document down

NOT_JSON = ("unparseable_message", "A JSON message requires one whole JSON document in UTF-8; got something else.")
_BLANKS = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_ARRAY_INDEX = {str(index): index for index in range(1_000)}


class NotJsonError(ValueError):
    """A text that is no JSON, or is nested too deep, or holds a number of absurd length."""


def parse(text: str | None) -> JsonValue:
    """Parse one document; bare NaN and Infinity, which some devices write, are numbers.

    Raises:
        NotJsonError: when it is none.
    """
    try:
        parsed: JsonValue = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(error)) from error
    return parsed


def parse_items(line: int, text: str | None, payload: bytes) -> list[tuple[Place, JsonValue]]:
    """Parse a message that is one value, or an array with objects, each item of which has its own bytes.

    Raises:
        NotJsonError: when it is not JSON as a whole.
    """
    parsed = parse(text)
    if text is None or not isinstance(parsed, list) or not any(isinstance(item, dict) for item in parsed):
        return [(Place(line, None, payload), parsed)]
    return [(Place(line, number, cut.encode()), value) for number, (cut, value) in enumerate(_items(text))]


def as_text(value: JsonValue) -> str | None:
    """Write a value as Polars writes it when it decodes JSON into text: numbers without an exponent, in the fewest digits.

    Lone surrogates, which UTF-8 cannot hold, become '?'.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if not isinstance(value, float):
        return dump(value)
    text = repr(value)
    if "e" in text:
        return np.format_float_positional(value, trim="-")
    return text.removesuffix(".0")


def dump(value: JsonValue) -> str:
    """Write a value as JSON; what is nested too deep to be written is null."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "null"


def look_up(document: JsonValue, path: Path) -> JsonValue:
    """Return the value at a path, None where there is none; in an array the names are numbers from 0."""
    found = document
    for name in path:
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list):
            index = _ARRAY_INDEX.get(name, len(found))
            found = found[index] if index < len(found) else None
        else:
            return None
    return found


def parse_pointer(pointer: str) -> Path:
    """Split an RFC 6901 pointer into names.

    >>> parse_pointer("/a~1b/0")
    ('a/b', '0')
    """
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:])


def _items(text: str) -> Iterator[tuple[str, JsonValue]]:
    """Yield the items of a good array that is not empty, with their texts."""
    at = _behind_blanks(text, 0)
    while text[at] != "]":
        start = _behind_blanks(text, at + 1)  # behind the bracket or the comma
        value, end = _DECODER.raw_decode(text, start)
        yield text[start:end], value
        at = _behind_blanks(text, end)


def _behind_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    return at if blanks is None else blanks.end()
