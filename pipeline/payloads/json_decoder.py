"""JSON: an object, an array of objects, or a bare number; NDJSON: one such object on each line. What is where says `layout.py`.

Objects of few shapes are parsed in bulk, all others one by one, to the same result. Called by `decode.py`.
"""

import polars as pl

from pipeline.payloads.json_values import NOT_JSON, JsonValue, NotJsonError, as_text, look_up, parse, parse_items
from pipeline.payloads.layout import Rule, lay_out, shape_of
from pipeline.payloads.rows import BROKEN_SCHEMA, FIELDS, WHOLE, Decoded, Found, Place, combine, refused
from pipeline.payloads.uniform import Uniform, cut_arrays, parse_uniform
from pipeline.settings import Route
from pipeline.store.identity import GENERIC_METRIC

NO_OBJECT = ("unparseable_message", "A JSON reading requires an object; got something else.")
NO_QUANTITY = ("no_reading", "A JSON reading requires at least one metric that is a number; got an object without.")


def decode_json(messages: pl.DataFrame, route: Route, *, in_bulk: bool = True) -> Decoded:
    """Decode messages that are one JSON document each.

    Args:
        messages: as `MESSAGES_SCHEMA`.
        route: pointers and what the topic names.
        in_bulk: whether objects of one shape may be parsed together; the result is the same.
    """
    rule = Rule.of(route)
    uniform: list[Uniform] = []
    if in_bulk:
        items, others = cut_arrays(messages)
        of_arrays, misfits = parse_uniform(items, rule)
        # an array with an object that fits no shape is read again as a whole: it may be no JSON at all
        again = pl.col("line").is_in(misfits["line"].unique().implode())
        whole = pl.concat([others, messages.filter(again)]).with_columns(WHOLE)
        singles, messages = parse_uniform(whole, rule)
        uniform = [*(group.filter(~again) for group in of_arrays), *singles]
    one_by_one = _OneByOne(rule)
    for line, payload, text in messages.select("line", "payload", "text").iter_rows():
        one_by_one.read_message(line, payload, text)
    return combine([*map(_rows, uniform), one_by_one.decoded()])


def decode_ndjson(messages: pl.DataFrame, route: Route, *, in_bulk: bool = True) -> Decoded:
    """Decode messages that hold one JSON object on each line; a bad line harms no other. Arguments as `decode_json`."""
    rule = Rule.of(route)
    is_text = pl.col("text").is_not_null()
    lines = _split_lines(messages.filter(is_text))
    uniform: list[Uniform] = []
    if in_bulk:
        uniform, lines = parse_uniform(lines, rule)
    one_by_one = _OneByOne(rule)
    for line, payload in messages.filter(~is_text).select("line", "payload").iter_rows():
        one_by_one.read_message(line, payload, None)
    for line, item, payload, text in lines.select("line", "item", "payload", "text").iter_rows():
        one_by_one.read_text(Place(line, item, payload), text)
    return combine([*map(_rows, uniform), one_by_one.decoded()])


def _split_lines(messages: pl.DataFrame) -> pl.DataFrame:
    """Return line, item, payload and text of each line of the messages that is not blank."""
    cut = messages.select("line", pl.col("text").str.split("\n"))
    items = cut.select(pl.int_ranges(0, pl.col("text").list.len()).alias("item")).explode("item")
    lines = cut.explode("text").hstack(items).with_columns(pl.col("text").str.strip_chars(" \t\r"))
    return lines.filter(pl.col("text") != "").with_columns(pl.col("text").cast(pl.Binary).alias("payload"))


class _OneByOne:
    """Objects read one after the other, by Python's parser."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._found = Found()
        self._members = Found()  # of objects of metrics: what of them is a number is decided for all at once

    def read_message(self, line: int, payload: bytes, text: str | None) -> None:
        try:
            items = parse_items(line, text, payload)
        except NotJsonError:
            self._found.refuse(Place(line, None, payload), *NOT_JSON)
            return
        for place, value in items:
            self._read(place, value)

    def read_text(self, place: Place, text: str) -> None:
        try:
            self._read(place, parse(text))
        except NotJsonError:
            self._found.refuse(place, *NOT_JSON)

    def decoded(self) -> Decoded:
        return combine([self._found.decoded(), _only_quantities(self._members.decoded().rows)])

    def _read(self, place: Place, value: JsonValue) -> None:
        """Read one object; a message that is a bare number is the value of what its topic names."""
        if isinstance(value, int | float) and place.item is None:
            self._found.add(place, value=as_text(value))
            return
        if not isinstance(value, dict):
            self._found.refuse(place, *NO_OBJECT)
            return
        layout = lay_out(self._rule, shape_of(value))
        if isinstance(layout, str):
            self._found.refuse(place, "no_reading", layout)
            return
        said: dict[str, str | None] = {"metric": GENERIC_METRIC} if layout.is_unnamed else {}
        for name, path in layout.fields:
            text = as_text(look_up(value, path))
            said[name] = _joined(said["ts"], text) if name == "ts" and "ts" in said else text
        if not layout.metrics:
            self._found.add(place, **said)
        for metric, path in layout.metrics:
            self._members.add(place, **{**said, "metric": as_text(metric), "value": as_text(look_up(value, path))})


def _joined(date: str | None, time: str | None) -> str | None:
    return None if date is None or time is None else f"{date} {time}"


def _rows(uniform: Uniform) -> Decoded:
    """Name what was parsed in bulk."""
    layout = uniform.layout
    column = {path: pl.col(str(number)) for number, path in enumerate(layout.paths)}
    said = {name: pl.lit(None, pl.String) for name in FIELDS}
    stamps = [column[path] for name, path in layout.fields if name == "ts"]
    said |= {name: column[path] for name, path in layout.fields}
    if len(stamps) > 1:
        said["ts"] = pl.concat_str(stamps, separator=" ")
    if layout.is_unnamed:
        said["metric"] = pl.lit(GENERIC_METRIC)
    frame = uniform.objects.hstack(uniform.texts)
    if not layout.metrics:
        return Decoded(_select(frame, said), BROKEN_SCHEMA.to_frame())
    members = [_select(frame, {**said, "metric": pl.lit(metric), "value": column[path]}) for metric, path in layout.metrics]
    return _only_quantities(pl.concat(members))


def _select(frame: pl.DataFrame, said: dict[str, pl.Expr]) -> pl.DataFrame:
    return frame.select("line", "item", "payload", *(expression.alias(name) for name, expression in said.items()))


def _only_quantities(rows: pl.DataFrame) -> Decoded:
    """Keep the members of objects of metrics that are numbers; the others are attributes. An object without any is broken."""
    said = pl.col("value").str.strip_chars()
    kept = rows.filter(said.cast(pl.Float64, strict=False).is_not_null() | said.is_in(["true", "false"]))
    empty = rows.join(kept, on=["line", "item"], how="anti", nulls_equal=True)
    return Decoded(kept, refused(empty.unique(["line", "item"], maintain_order=True), NO_QUANTITY))
