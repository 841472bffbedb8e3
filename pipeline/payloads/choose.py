"""Which route reads a message, and in which format it is written: by the route, its content type, its topic or its bytes.

Called by `decode.py`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import polars as pl

from pipeline.payloads.json_values import as_text
from pipeline.payloads.sparkplug_session import NAMESPACE
from pipeline.settings import PayloadFormat, Route

UNKNOWN_FORMAT = ("unknown_format", "A message requires a known format; got none that its route, content type or bytes name.")
NO_ROUTE = Route()
FORMATS: dict[str, PayloadFormat | None] = {  # by media type
    "application/json": None,  # may be SenML or a CloudEvent too: their bytes say it
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/senml+json": "senml",
    "application/cloudevents+json": "cloud_events",
    "application/cloudevents-batch+json": "cloud_events",
    "application/vnd.influx.line-protocol": "line_protocol",
    "application/x-influx-line-protocol": "line_protocol",
}
UTF_8 = "utf-8"
_CHARSETS = {  # by the names that senders give; not asked of Python, which keeps every unknown one for ever
    **dict.fromkeys(("utf-8", "utf8"), UTF_8),
    **dict.fromkeys(("us-ascii", "ascii"), "ascii"),
    **dict.fromkeys(("iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "latin-1"), "iso8859-1"),
    **dict.fromkeys(("windows-1252", "cp1252"), "cp1252"),
    **{name: name for name in ("utf-16", "utf-16-le", "utf-16-be")},
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:+-]*)", re.IGNORECASE)

# By the first bytes of a text. A JSON object or array, a bare number, or a line of line protocol.
_OBJECT_LINES = r"^\s*[{\[].*[}\]][ \t\r]*\n\s*[{\[]"
_SENML_RECORD = r'^\s*\[\s*\{[^{}\[\]]*"(?:bn|n)"\s*:'
_SENML_VALUE = r'^\s*\[\s*\{[^{}\[\]]*"(?:v|vb|vs|vd|s|bv|bt|bu|bver)"\s*:'
_NUMBER = r"^\s*-?\d[\d.eE+-]*\s*$"
_LINE = r'^(?:\s*\n|#[^\n]*\n)*[^\s{\["#](?:[^\n]*[^\\\s])? +[^\s=]+='


def route_of(topic: str, routes: Sequence[Route]) -> tuple[int | None, dict[str, str]]:
    """Find the first route whose topic fits.

    Returns:
        Its number, None where none fits, and what the topic says: device_id, metric, where the route names them.
    """
    for number, route in enumerate(routes):
        match = _template(route.topic).fullmatch(topic)
        if match is not None:
            said = match.groupdict()
            return number, {name: as_text(said[name]) or "" for name in ("device_id", "metric") if name in said}
    return None, {}


def route_at(number: int | None, routes: Sequence[Route]) -> Route:
    """Return a route by its number; where none fits, one that maps nothing."""
    return NO_ROUTE if number is None else routes[number]


def named_format(route: Route, content_type: str | None, topic: str) -> PayloadFormat | None:
    """Return the format that a route, a content type or a topic names; None where the bytes must say it."""
    if route.format is not None:
        return route.format
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return FORMATS.get(media_type) or ("sparkplug" if topic.startswith(f"{NAMESPACE}/") else None)


def charset_of(content_type: str | None) -> str:
    """Return Python's name of the character set that a content type names, else UTF-8; one that is not read has an empty name."""
    match = _CHARSET.search(content_type or "")
    return UTF_8 if match is None else _CHARSETS.get(match[1].lower(), "")


def sniff(text: pl.Expr) -> pl.Expr:
    """Return the format of texts by their first characters; null where they show none."""
    start = text.str.strip_chars_start().str.slice(0, 1)
    is_json = start.is_in(["{", "["])
    is_event = text.str.contains('"specversion"', literal=True)
    is_senml = (start == "[") & text.str.contains(_SENML_RECORD) & text.str.contains(_SENML_VALUE)
    of_lines = pl.when(text.str.contains("\n", literal=True)).then(text)  # the rest need not be searched
    is_lines = of_lines.str.contains(_OBJECT_LINES).fill_null(value=False)
    json = (
        pl.when(is_lines).then(pl.lit("ndjson"))
        .when(is_event).then(pl.lit("cloud_events"))
        .when(is_senml).then(pl.lit("senml"))
        .otherwise(pl.lit("json"))
    )  # fmt: skip
    other = pl.when(text.str.contains(_NUMBER)).then(pl.lit("json")).when(text.str.contains(_LINE)).then(pl.lit("line_protocol"))
    return pl.when(is_json).then(json).otherwise(other)


@lru_cache(maxsize=256)
def _template(topic: str) -> re.Pattern[str]:
    """Turn a topic template into a regular expression: + and {name} are one level, or a part of one, # is any rest."""
    parts = re.split(r"(\{\w+\}|\+|#)", topic)
    words = {"+": "[^/]*", "#": ".*"}
    patterns = (f"(?P<{part[1:-1]}>[^/]+)" if part.startswith("{") else words.get(part, re.escape(part)) for part in parts)
    pattern = "".join(patterns)
    if topic.endswith("/#"):  # in MQTT it is the level above, too
        pattern = pattern.removesuffix("/.*") + "(?:/.*)?"
    return re.compile(pattern, re.DOTALL)
