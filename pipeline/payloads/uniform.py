"""JSON objects of a few shapes, parsed all at once: devices of one kind send the same members in the same order.

A shape becomes a regular expression that only plain JSON of exactly this shape can match. Every other text is left to `json_decoder.py`,
which parses it to the same result, one at a time. Called by `json_decoder.py`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from pipeline.payloads.json_values import JsonValue, Path
from pipeline.payloads.layout import Layout, Rule, lay_out, shape_of
from pipeline.payloads.plain_json import BLANKS, SCALAR
from pipeline.payloads.rows import WHOLE

_UNBRACED = r'[^{}"\\]*(?:"[^"\\]*"[^{}"\\]*)*'  # anything without braces but in quotes
_OBJECT = rf"\{{{_UNBRACED}(?:\{{{_UNBRACED}\}}{_UNBRACED})*\}}"  # the outer form of an object, which may hold flat ones
_SAMPLE = 40  # texts whose shapes are tried
_SHAPES = 8  # tried on one batch
_MEMBERS = 64  # of an object: a regular expression of very many would be refused
_LEAST = 50  # texts of a shape, below which one by one is as quick


@dataclass(frozen=True)
class Uniform:
    """Objects of one shape.

    Attributes:
        layout: which of their members plays which part.
        objects: line, item and payload of each.
        texts: for each path of the layout, by its number, the text of its member (String, null where it is null).
    """

    layout: Layout
    objects: pl.DataFrame
    texts: pl.DataFrame

    def filter(self, is_kept: pl.Expr) -> "Uniform":
        """Keep some of the objects, chosen by their line or item."""
        mask = self.objects.select(is_kept).to_series()
        return Uniform(self.layout, self.objects.filter(mask), self.texts.filter(mask))


def parse_uniform(objects: pl.DataFrame, rule: Rule) -> tuple[list[Uniform], pl.DataFrame]:
    """Parse the objects of the shapes that most of a sample has.

    Args:
        objects: line, item, payload and text, each text perhaps one JSON object.
        rule: how objects are laid out.

    Returns:
        What was parsed, and the objects that were not.
    """
    found: list[Uniform] = []
    for document in _frequent(objects):
        if len(objects) < _LEAST:
            break
        shape = shape_of(document)
        layout = lay_out(rule, shape)
        pattern = _pattern(document) if len(shape) <= _MEMBERS else None
        if isinstance(layout, str) or pattern is None or _reads_an_object(layout, shape):
            continue
        fits = objects["text"].fill_null("").str.contains(f"^{BLANKS}{pattern}{BLANKS}$")
        uniform = _parse(objects.filter(fits), layout, shape)
        if uniform is not None:
            found.append(uniform)
            objects = objects.filter(~fits)
    return found, objects


def cut_arrays(messages: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut arrays of objects into their objects.

    Args:
        messages: line, payload and text; an array may be anything else.

    Returns:
        The objects (line, item, payload, text) of those whose outer form is surely such an array, and the other messages. An object that
        no shape fits may still not be JSON: then its whole message is not.
    """
    is_array = (
        messages["text"].fill_null("").str.contains(rf"^{BLANKS}\[{BLANKS}{_OBJECT}(?:{BLANKS},{BLANKS}{_OBJECT})*{BLANKS}\]{BLANKS}$")
    )
    arrays = messages.filter(is_array)
    if len(arrays) == 0:
        return arrays.select("line", WHOLE, "payload", "text"), messages
    cut = arrays.select("line", pl.col("text").str.extract_all(_OBJECT))
    items = cut.select(pl.int_ranges(0, pl.col("text").list.len()).alias("item")).explode("item")
    objects = cut.explode("text").hstack(items).select("line", "item", pl.col("text").cast(pl.Binary).alias("payload"), "text")
    return objects, messages.filter(~is_array)


def _frequent(objects: pl.DataFrame) -> Iterator[dict[str, JsonValue]]:
    """Yield an object of each shape of a sample, the most frequent first; drawn, because faults may come at every tenth message."""
    texts = objects["text"].sample(min(_SAMPLE, len(objects)), seed=0)
    documents: dict[tuple[Path, ...], dict[str, JsonValue]] = {}
    counts: Counter[tuple[Path, ...]] = Counter()
    for text in texts:
        try:
            document = json.loads(text or "")
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            shape = shape_of(document)
            counts[shape] += 1
            documents.setdefault(shape, document)
    for shape, _ in counts.most_common(_SHAPES):
        yield documents[shape]


def _pattern(document: dict[str, JsonValue]) -> str | None:
    """Return a regular expression for the objects with the same members in the same order; None where a name needs escapes."""
    members = []
    for name, value in document.items():
        inner = _pattern(value) if isinstance(value, dict) else SCALAR
        if inner is None or not name.isprintable() or any(sign in name for sign in '"\\'):
            return None
        members.append(f'"{re.escape(name)}"{BLANKS}:{BLANKS}{inner}')
    return rf"\{{{BLANKS}" + f"{BLANKS},{BLANKS}".join(members) + rf"{BLANKS}\}}"


def _reads_an_object(layout: Layout, shape: tuple[Path, ...]) -> bool:
    """Whether a path leads to an object, whose text Polars and Python would write differently."""
    return any(len(path) < len(member) and member[: len(path)] == path for path in layout.paths for member in shape)


def _parse(objects: pl.DataFrame, layout: Layout, shape: tuple[Path, ...]) -> Uniform | None:
    """Decode what is surely JSON of this shape; None where too few are, or where Polars cannot after all."""
    if len(objects) < _LEAST:
        return None
    dtype = _dtype(tuple(path for path in layout.paths if path in shape))
    columns = []
    for number, path in enumerate(layout.paths):
        column = pl.col("text") if path in shape else pl.lit(None, pl.String)
        for name in path if path in shape else ():
            column = column.struct.field(name)
        columns.append(column.alias(str(number)))
    try:
        texts = objects.select(pl.col("text").str.json_decode(dtype)).with_columns(columns).drop("text")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    return Uniform(layout, objects.select("line", "item", "payload"), texts)


def _dtype(paths: tuple[Path, ...]) -> pl.DataType:
    """Return the struct that holds each path as text."""
    tree: dict[str, list[Path]] = {}
    for path in paths:
        tree.setdefault(path[0], []).append(path[1:])
    return pl.Struct({name: _dtype(tuple(rest)) if rest != [()] else pl.String() for name, rest in tree.items()})
