"""InfluxDB line protocol: `measurement,tag=value field=value,field=value timestamp`, a line for each instant of a device.

Plain lines are read all at once, those with escapes, quotes or faults one by one, to the same result.
Called by `decode.py`.
"""

import re
from collections.abc import Iterator

import polars as pl

from pipeline.ingest.mapping import KNOWN
from pipeline.payloads.rows import ROWS_SCHEMA, Decoded, Found, Place
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

# What most lines are, in the words of Rust's expressions: no quotes, no escapes, single spaces, fields that are numbers. What these
# match, those above read to the same result; all else is left to those above.
_SIGN = r"[^,=\s\x1c-\x1f]"  # of a name; Python's blanks are a few more than Rust's
_PLAIN = rf"^[^,\s\x1c-\x1f#][^,\s\x1c-\x1f]*(?:,{_SIGN}+={_SIGN}+)* {_SIGN}+={_SIGN}+(?:,{_SIGN}+={_SIGN}+)*(?: -?[0-9]+)?\r?$"
_WHOLE_PLAIN, _NUMBER_PLAIN = r"^[+-]?[0-9]+[iu]$", r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_BOOLEANS_PLAIN = {text: _BOOLEANS[text.lower()] for text in ("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE")}
_NO_DATA_PLAIN = r"^[ \t]*(?:#[^\n]*)?\r?$"
_HEADS_SCHEMA = pl.Schema({"head": pl.String, "device_id": pl.String, "prefix": pl.String})


def decode_line_protocol(messages: pl.DataFrame, route: Route, *, in_bulk: bool = True) -> Decoded:
    """Decode lines; each field that is a number or a boolean is a reading, texts are none.

    Args:
        messages: as `MESSAGES_SCHEMA`.
        route: the tag that names the device; by default a usual one, else the measurement and all tags name it.
        in_bulk: whether plain lines may be read together; the result is the same.

    Returns:
        Readings with stamps as they are, which are nanoseconds unless the route says otherwise.
    """
    found = Found()
    bulk = ROWS_SCHEMA.to_frame()
    if in_bulk:
        is_plain = ~pl.col("text").str.contains(r'["\\]').fill_null(value=True)  # then a line ends at the first line break
        lines = _split_lines(messages.filter(is_plain))
        messages = messages.filter(~is_plain)
        bulk, others = _read_plain(lines, route.device_tag)
        for line, item, payload, text in others.select("line", "item", "payload", "text").iter_rows():
            _read_line(found, Place(line, item, payload), _LINE.match(text), route.device_tag)
    for line, payload, text in messages.select("line", "payload", "text").iter_rows():
        if text is None:
            found.refuse(Place(line, None, payload), *NOT_UTF8)
            continue
        for item, (cut, match) in enumerate(_lines(text)):
            _read_line(found, Place(line, item, cut.encode()), match, route.device_tag)
    one_by_one = found.decoded()
    return Decoded(pl.concat([bulk, one_by_one.rows]), one_by_one.broken)


def _split_lines(messages: pl.DataFrame) -> pl.DataFrame:
    """Return line, item, payload and text of each line of the messages that is no comment and not blank."""
    cut = messages.select("line", pl.col("text").str.split("\n")).explode("text")
    lines = cut.filter(~pl.col("text").str.contains(_NO_DATA_PLAIN))
    item = pl.int_range(pl.len(), dtype=pl.Int64).over("line") if len(lines) > lines["line"].n_unique() else pl.lit(0, pl.Int64)
    payload = pl.col("text").str.strip_chars_end("\r").cast(pl.Binary)
    return lines.select("line", item.alias("item"), payload.alias("payload"), "text")


def _read_plain(lines: pl.DataFrame, device_tag: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read lines of a plain form all at once; the part before the fields is parsed once for each series.

    Args:
        lines: line, item, payload and text.
        device_tag: the tag that names the device, from the route.

    Returns:
        Readings as `ROWS_SCHEMA`, and the lines that are of another form, or hold a field that is no number.
    """
    lines = lines.with_row_index("index")
    parts = pl.col("text").str.strip_chars_end("\r").str.splitn(" ", 3).struct.rename_fields(["head", "fields", "ts"])
    plain = lines.filter(pl.col("text").str.contains(_PLAIN)).with_columns(parts.alias("parts")).unnest("parts")
    fields = plain.with_columns(pl.col("fields").str.split(",")).explode("fields")
    fields = fields.with_columns(pl.col("fields").str.splitn("=", 2).struct.rename_fields(["key", "value"])).unnest("fields")
    fields = fields.with_columns(_plain_number(pl.col("value")).alias("value"))
    no_number = fields.filter(pl.col("value").is_null()).select("index").unique()
    fields = fields.join(no_number, on="index", how="anti", maintain_order="left")
    heads = []  # few, because a series writes the same in each of its lines
    for head in fields["head"].unique():
        measurement, comma, tags = head.partition(",")
        heads.append((head, *_read_head(measurement, comma + tags, device_tag)))
    metric = pl.when(pl.col("prefix").is_null()).then("key").when(pl.col("key") == "value").then("prefix")
    rows = fields.join(pl.DataFrame(heads, schema=_HEADS_SCHEMA, orient="row"), on="head", how="left", maintain_order="left").select(
        "line", "item", "payload", "ts", "device_id", metric.otherwise(pl.concat_str("prefix", pl.lit("."), "key")).alias("metric"), "value"
    )
    others = lines.join(fields.select("index").unique(), on="index", how="anti", maintain_order="left")
    return pl.concat([ROWS_SCHEMA.to_frame(), rows], how="diagonal"), others


def _plain_number(value: pl.Expr) -> pl.Expr:
    """Return the numbers that plain fields hold, as `_number` does; null for what is left to it."""
    is_whole, is_number = value.str.contains(_WHOLE_PLAIN), value.str.contains(_NUMBER_PLAIN)
    boolean = value.replace_strict(_BOOLEANS_PLAIN, default=None, return_dtype=pl.String)
    return pl.when(is_number).then(value).when(is_whole).then(value.str.head(-1)).otherwise(boolean)


def _read_head(measurement: str, tags_text: str, device_tag: str | None) -> tuple[str | None, str | None]:
    """Return the device of a line, and the prefix of its metrics; None where the fields alone name them."""
    measurement = _unescaped(measurement)
    tags = {_unescaped(key): _unescaped(value) for key, value in _TAGS.findall(tags_text)}
    name = device_tag or next((tag for tag in tags if tag.lower() in KNOWN["device_id"]), None)
    if name is not None:  # a device may send several measurements with fields of one name
        return tags.get(name), measurement
    return ",".join([measurement, *(f"{tag}={tags[tag]}" for tag in sorted(tags))]), None


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


def _read_line(found: Found, place: Place, match: re.Match[str] | None, device_tag: str | None) -> None:
    fields = [] if match is None else _FIELDS.findall(match["fields"])
    numbers = [(_unescaped(key), _number(value)) for key, value in fields if not value.startswith('"')]
    if match is None or any(number is None for _, number in numbers):
        found.refuse(place, *NO_LINE)
        return
    if not numbers:
        found.refuse(place, *NO_QUANTITY)
    device, prefix = _read_head(match["measurement"], match["tags"], device_tag)
    for key, number in numbers:
        metric = key if prefix is None else prefix if key == "value" else f"{prefix}.{key}"
        found.add(place, ts=match["stamp"], device_id=device, metric=metric, value=number)


def _number(value: str) -> str | None:
    """Return the number that a field holds, a boolean as 1 or 0; None where it is neither."""
    match = _NUMBER.fullmatch(value)
    return _BOOLEANS.get(value.lower()) if match is None else match[1] or match[2]


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(r"\1", name) if "\\" in name else name
