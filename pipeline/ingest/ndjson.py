"""Reads NDJSON, one object or one array of objects on each line: line by line in meaning, by blocks in speed.

A block without a fault is parsed by Polars in one go (measured: 1.8 M lines/s on one core); in one with faults only the lines that
are not surely good are looked at one by one. Called through `formats.open_source`.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from pipeline.errors import DataError
from pipeline.ingest.mapping import KNOWN
from pipeline.ingest.raw import NOT_UTF8, ORIGIN_SCHEMA, RawBatch, broken_rows, read_head, read_lines

# A flat object in the plainest JSON: surely good. In a block with faults these lines are still parsed at once.
_SCALAR = r'(?:"[^"\\\x00-\x1f]*"|-?(?:0|[1-9]\d{0,16})(?:\.\d+)?(?:[eE][+-]?\d\d?)?|true|false|null)'
_PAIR = rf'\s*"[^"\\\x00-\x1f]*"\s*:\s*{_SCALAR}\s*'
_FLAT = rf"^\s*\{{{_PAIR}(?:,{_PAIR})*\}}\s*$"
_SUB_BLOCK = 2_000  # of the other lines: what one bad line slows down
_MAY_COME_LATER = ("unit", "quality", "seq", "received_at")  # keys that a device may add at any line
_NOT_JSON = "A line requires one JSON object, or an array of them; got something else."

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None


class NdjsonSource:
    """A file with one JSON object, or one array of objects, on each line; its columns are the keys of the objects."""

    def __init__(self, path: Path) -> None:
        """Collect the keys at the start of the file, or of all of it where they carry no `value`: there every key may be a series.

        Raises:
            DataError: when the file is empty, binary, or one document spread over many lines.
        """
        self._path = path
        head = read_head(path)
        if len(head) > 1 and head[0].strip() in (b"[", b"{"):
            raise DataError(
                f"{path.name} requires one JSON object on each line; got one document over many lines. Convert it: jq -c '.[]'."
            )
        keys = dict.fromkeys(key for line in head for key in _keys(line.decode(errors="replace")))
        if not any(key.lower() in KNOWN["value"] for key in keys):
            texts = (text for block in read_lines(path, 50_000) for text in block["text"].drop_nulls())
            keys = dict.fromkeys(key for text in texts for key in _keys(text))
        later = [role for role in _MAY_COME_LATER if not any(key.lower() in KNOWN[role] for key in keys)]
        self.columns = (*keys, *(later if keys else ()))

    def batches(self, columns: Sequence[str], num_rows: int) -> Iterator[RawBatch]:
        """Yield the objects of `num_rows` lines at a time as rows of text."""
        for block in read_lines(self._path, num_rows):
            yield self._parse(block, columns)

    def _parse(self, block: pl.DataFrame, columns: Sequence[str]) -> RawBatch:
        is_text = pl.col("text").is_not_null()
        lines = block.filter(is_text)
        found = _Objects(columns)
        if not found.add_block(lines):
            is_flat = pl.col("text").str.contains(_FLAT)
            for part in (lines.filter(is_flat), *lines.filter(~is_flat).iter_slices(_SUB_BLOCK)):
                if not found.add_block(part):
                    found.add_lines(part)
        undecodable = broken_rows(self._path.name, block.filter(~is_text), "unparseable_line", NOT_UTF8)
        unparsed = broken_rows(self._path.name, pl.concat([ORIGIN_SCHEMA.to_frame(), *found.refused]), "unparseable_line", _NOT_JSON)
        return RawBatch(self._path.name, *found.in_order(), pl.concat([undecodable, unparsed]))


@dataclass
class _Objects:
    """The rows found so far in one block, with their origins, and the origins of what was none."""

    columns: Sequence[str]
    rows: list[pl.DataFrame] = field(default_factory=list)
    origins: list[pl.DataFrame] = field(default_factory=list)
    refused: list[pl.DataFrame] = field(default_factory=list)

    def add_block(self, lines: pl.DataFrame) -> bool:
        """Parse all lines at once; False, and nothing added, when any of them is not one plain object."""
        schema = dict.fromkeys(self.columns, pl.String)
        try:
            rows = pl.read_ndjson(io.BytesIO(b"\n".join(lines["payload"])), schema=schema) if len(lines) else pl.DataFrame(schema=schema)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return False
        if len(rows) != len(lines):
            return False
        self.rows.append(rows)
        self.origins.append(lines.select(ORIGIN_SCHEMA.names()))
        return True

    def add_lines(self, lines: pl.DataFrame) -> None:
        """Parse line by line, with Python's parser, which also reads the bare NaN and Infinity that some devices write."""
        cells: dict[str, list[str | None]] = {name: [] for name in self.columns}
        origins: list[tuple[int, int | None, bytes]] = []
        refused: list[tuple[int, int | None, bytes]] = []
        for line, payload, text in lines.select("line", "payload", "text").iter_rows():
            for item, found in _numbered(_loads(text)):
                origin = (line, item, payload if item is None else json.dumps(found).encode())
                if isinstance(found, dict):
                    for name, column in cells.items():
                        column.append(_as_text(found.get(name)))
                    origins.append(origin)
                else:
                    refused.append(origin)
        self.rows.append(pl.DataFrame(cells, schema=dict.fromkeys(self.columns, pl.String)))
        self.origins.append(pl.DataFrame(origins, schema=ORIGIN_SCHEMA, orient="row"))
        self.refused.append(pl.DataFrame(refused, schema=ORIGIN_SCHEMA, orient="row"))

    def in_order(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows and their origins in the order of the file."""
        rows, origins = pl.concat(self.rows), pl.concat(self.origins)
        if len(self.rows) == 1:
            return rows, origins
        order = origins.select(pl.arg_sort_by("line", "item")).to_series()
        return rows[order], origins[order]


def _loads(text: str) -> JsonValue:
    """Parse one line; None, which is no object either, for what is no JSON, is nested too deep or holds an absurd number."""
    try:
        parsed: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed


def _numbered(parsed: JsonValue) -> list[tuple[int | None, JsonValue]]:
    return list(enumerate(parsed)) if isinstance(parsed, list) else [(None, parsed)]


def _keys(text: str) -> list[str]:
    return [key for _, found in _numbered(_loads(text)) if isinstance(found, dict) for key in found]


def _as_text(value: JsonValue) -> str | None:
    """Write a value as Polars does when it reads JSON into text; lone surrogates, which UTF-8 cannot hold, become '?'."""
    if value is None or isinstance(value, str):
        return value if value is None else value.encode(errors="replace").decode()
    return repr(value) if isinstance(value, float) else json.dumps(value)
