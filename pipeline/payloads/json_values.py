"""JSON one message at a time: parsed without ever raising, cut into the bytes of its items, and written as text.

Called by the JSON formats, for what cannot be parsed in bulk.
"""

import json
import math
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
    """Parse a message that is one value or an array of them, each item with its own bytes.

    Raises:
        NotJsonError: when it is not JSON as a whole.
    """
    if text is None or not text.lstrip(" \t\r\n").startswith("["):
        return [(Place(line, None, payload), parse(text))]
    try:
        found = list(_items(text))
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(error)) from error
    return [(Place(line, number, cut.encode()), value) for number, (cut, value) in enumerate(found)]


def as_text(value: JsonValue) -> str | None:
    """Write a value as Polars writes it when it decodes JSON into text: numbers without an exponent, in the fewest digits.

    Lone surrogates, which UTF-8 cannot hold, become '?'.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, float) and math.isfinite(value):
        return np.format_float_positional(value, trim="-")
    return repr(value) if isinstance(value, float) else json.dumps(value)


def look_up(document: JsonValue, path: Path) -> JsonValue:
    """Return what is at a path, None where nothing is; in an array the names are numbers from 0."""
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
    """Yield the items of an array with their texts; raise ValueError where it is none."""
    at = _skip(text, _skip(text, 0) + 1)
    if text[at : at + 1] == "]":
        at += 1
    else:
        while True:
            value, end = _DECODER.raw_decode(text, at)
            yield text[at:end], value
            end = _skip(text, end)
            at = _skip(text, end + 1)
            if text[end : end + 1] == "]":
                at = end + 1
                break
            if text[end : end + 1] != ",":
                raise ValueError(f"no comma at {end}")
    if _skip(text, at) != len(text):
        raise ValueError(f"more than an array, from {at}")


def _skip(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    return at if blanks is None else blanks.end()
