"""SenML in JSON (RFC 8428): records that share a base name, time, unit and value.

Packs of plain records are read all at once, the others one by one, to the same result. Called by `decode.py`.
"""

import math
import re
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline.payloads.json_values import NOT_JSON, JsonValue, NotJsonError, as_text, parse_items
from pipeline.payloads.plain_json import BLANKS, NUMBER, TEXT
from pipeline.payloads.rows import ROWS_SCHEMA, Decoded, Found, Place
from pipeline.payloads.uniform import cut_arrays
from pipeline.schemas import EPOCH, MICROSECOND
from pipeline.store.identity import GENERIC_METRIC

VERSION = 10  # of RFC 8428
_ABSOLUTE_FROM_S = 2**28  # section 4.5.3: a smaller time is relative to now
_NUMBERS, _TEXTS = ("bt", "bv", "bs", "bver", "t", "v", "s"), ("bn", "bu", "n", "u")
_VALUES = ("v", "vb", "vs", "vd", "s")
_DEVICE_URN = re.compile(r"(urn:dev:[^:]+:[^:/_]+)(?:[:/_](.+))?", re.DOTALL)  # RFC 9039: what follows the device names a part of it
_NAME = re.compile(r"(.+)[/:](.+)", re.DOTALL)

# A plain record: only these members.
_COLON = rf"{BLANKS}:{BLANKS}"
_PLAIN_MEMBER = rf'(?:"(?:bn|n|bu|u)"{_COLON}{TEXT}|"(?:bt|t|bv|v)"{_COLON}{NUMBER}|"vb"{_COLON}(?:true|false))'
_PLAIN = rf"^{BLANKS}\{{{BLANKS}{_PLAIN_MEMBER}(?:{BLANKS},{BLANKS}{_PLAIN_MEMBER})*{BLANKS}\}}{BLANKS}$"
_PLAIN_MEMBERS = {**dict.fromkeys(("bn", "n", "bu", "u"), pl.String), **dict.fromkeys(("bt", "t", "bv", "v"), pl.Float64), "vb": pl.Boolean}
_PLAIN_DTYPE = pl.Struct(_PLAIN_MEMBERS)
_FARTHEST_S = 2.0**42  # beyond it microseconds do not fit Int64

Record = dict[str, JsonValue]


@dataclass
class _Base:
    """The base values that the records so far set for the records after them."""

    name: str = ""
    time_s: float = 0.0
    unit: str | None = None
    value: float = 0.0
    sum: float = 0.0

    def update(self, record: Record) -> None:
        self.name = str(record.get("bn", self.name))
        self.time_s = _number(record, "bt", self.time_s)
        self.unit = _text(record, "bu", self.unit)
        self.value = _number(record, "bv", self.value)
        self.sum = _number(record, "bs", self.sum)


def decode_senml(messages: pl.DataFrame, *, in_bulk: bool = True) -> Decoded:
    """Decode packs: values and booleans (1 or 0) are readings, sums are readings of `<metric>_sum`, texts and data are none.

    Args:
        messages: as `MESSAGES_SCHEMA`, and received_at: the now that relative times are relative to.
        in_bulk: whether plain packs may be read together; the result is the same, except that a number may be written in other digits.

    Returns:
        Readings with stamps in microseconds since 1970.
    """
    found, bulk = Found(), ROWS_SCHEMA.to_frame()
    if in_bulk:
        bulk, messages = _read_plain(messages)
    for line, payload, text, received_at in messages.select("line", "payload", "text", "received_at").iter_rows():
        whole = Place(line, None, payload)
        try:
            items = parse_items(line, text, payload)
        except NotJsonError:
            found.refuse(whole, *NOT_JSON)
            continue
        pack = [(place, record) for place, record in items if isinstance(record, dict)]
        fault = _fault([record for _, record in pack]) if len(pack) == len(items) else _requires("an array of records")
        if fault is None:
            _read_pack(found, pack, payload, received_at)
        else:
            found.refuse(whole, *fault)
    one_by_one = found.decoded()
    return Decoded(pl.concat([bulk, one_by_one.rows]), one_by_one.broken)


def _read_plain(messages: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the packs of plain records with a value each; return their readings, as `ROWS_SCHEMA`, and the other messages."""
    records, _ = cut_arrays(messages)
    said = pl.when(pl.col("text").str.contains(_PLAIN)).then("text").str.json_decode(_PLAIN_DTYPE).alias("said")
    num_members = pl.col("text").str.count_matches(rf'"{BLANKS}:').alias("num_members")
    records = records.select("line", "item", num_members, said).unnest("said")
    num_said = pl.sum_horizontal(pl.col(name).is_not_null().cast(pl.UInt32) for name in _PLAIN_MEMBERS)
    is_good = (num_said == pl.col("num_members")) & pl.any_horizontal(pl.col("v", "vb").is_not_null())  # no member came twice
    base = (pl.col(name).forward_fill().over("line") for name in ("bn", "bt", "bu", "bv"))
    records = records.with_columns(*base, is_good=is_good)
    records = records.with_columns((pl.col("bt").fill_null(0.0) + pl.col("t").fill_null(0.0)).alias("t"))
    bad = records.filter(~(pl.col("is_good") & (pl.col("t").abs() < _FARTHEST_S)))["line"].unique().implode()
    is_bad = pl.col("line").is_in(bad)
    records = records.filter(~is_bad).join(messages.select("line", "payload", "received_at"), on="line", how="left", maintain_order="left")
    is_read = pl.col("line").is_in(records["line"].unique().implode())
    return _resolved(records), messages.filter(~is_read)


def _resolved(records: pl.DataFrame) -> pl.DataFrame:
    """Return the readings of records whose base values are filled in."""
    name = (pl.col("bn").fill_null("") + pl.col("n").fill_null("")).alias("name")
    records = records.with_columns(name)
    names = [(name, *_device_and_metric(name)) for name in records["name"].unique()]  # few: each record of a series has the same
    named = pl.DataFrame(names, schema={"name": pl.String, "device_id": pl.String, "metric": pl.String}, orient="row")
    now = pl.when(pl.col("t") < _ABSOLUTE_FROM_S).then(pl.col("received_at").to_physical()).otherwise(0)
    rows = records.join(named, on="name", how="left", maintain_order="left").select(
        "line",
        "item",
        "payload",
        "device_id",
        "metric",
        ((pl.col("t") * 1e6).round().cast(pl.Int64) + now).cast(pl.String).alias("ts"),
        pl.coalesce(pl.col("v") + pl.col("bv").fill_null(0.0), pl.col("vb").cast(pl.Float64))
        .cast(pl.String)
        .str.strip_suffix(".0")
        .alias("value"),
        pl.coalesce("u", "bu").alias("unit"),
    )
    return pl.concat([ROWS_SCHEMA.to_frame(), rows], how="diagonal")


def _requires(what: str) -> tuple[str, str]:
    return "unparseable_message", f"A SenML pack requires {what}; got something else."


def _fault(records: list[Record]) -> tuple[str, str] | None:
    """Return why a pack cannot be resolved; then none of it can, because records build on those before them."""
    for record in records:
        if any(isinstance(record[name], bool) or not isinstance(record[name], int | float) for name in _NUMBERS if name in record):
            return _requires(f"numbers in {', '.join(_NUMBERS)}")
        if any(not math.isfinite(_number(record, name, 0.0)) for name in ("bt", "t", "bv", "bs", "bver")):
            return _requires("finite times and base values")
        if any(not isinstance(record[name], str) for name in _TEXTS if name in record) or not isinstance(record.get("vb", False), bool):
            return _requires(f"texts in {', '.join(_TEXTS)} and true or false in vb")
        if record.get("bver", VERSION) != VERSION and _number(record, "bver", VERSION) > VERSION:
            return "unsupported_version", f"A SenML pack requires version {VERSION} or before; got {record['bver']}."
        unknown = next((name for name in record if name.endswith("_")), None)
        if unknown is not None:  # section 4.4: such a name must be understood
            return (
                "unsupported_version",
                f"A SenML pack requires members of RFC 8428; got {as_text(unknown[:40])!r}, which must be understood.",
            )
    return None


def _read_pack(found: Found, pack: list[tuple[Place, Record]], payload: bytes, received_at: datetime) -> None:
    base = _Base()
    for own, record in pack:
        place = Place(own.line, own.item, payload)  # a record is nothing without those before it
        base.update(record)
        device, metric = _device_and_metric(base.name + str(record.get("n", "")))
        time_s = base.time_s + _number(record, "t", 0.0)
        common = {"ts": _micros(time_s, received_at), "device_id": as_text(device), "unit": as_text(_text(record, "u", base.unit))}
        if "v" in record:
            found.add(place, **common, metric=as_text(metric), value=as_text(_number(record, "v", 0.0) + base.value))
        elif "vb" in record:
            found.add(place, **common, metric=as_text(metric), value="1" if record["vb"] else "0")
        if "s" in record:
            found.add(place, **common, metric=as_text(f"{metric}_sum"), value=as_text(_number(record, "s", 0.0) + base.sum))
        if not any(name in record for name in _VALUES) and not all(name.startswith("b") for name in record):
            found.refuse(own, "no_reading", f"A SenML record requires one of {', '.join(_VALUES)}; got none of them.")


def _device_and_metric(name: str) -> tuple[str | None, str]:
    """Split a whole name: a device of RFC 9039 and its part, else at the last slash or colon; without one it is a metric."""
    urn = _DEVICE_URN.fullmatch(name)
    if urn is not None:
        return urn[1], urn[2] or GENERIC_METRIC
    parts = _NAME.fullmatch(name)
    return (None, name) if parts is None else (parts[1], parts[2])


def _micros(time_s: float, received_at: datetime) -> str:
    """Return an instant in microseconds since 1970."""
    if not math.isfinite(time_s * 1e6):
        return repr(time_s)  # beyond all numbers: no stamp
    micros = round(time_s * 1e6)
    now = 0 if time_s >= _ABSOLUTE_FROM_S else (received_at - EPOCH) // MICROSECOND
    return str(now + micros)


def _number(record: Record, name: str, default: float) -> float:
    value = record.get(name, default)
    try:
        return float(value) if isinstance(value, int | float) else default
    except OverflowError:  # a whole number beyond Float64
        return math.inf


def _text(record: Record, name: str, default: str | None) -> str | None:
    value = record.get(name, default)
    return value if isinstance(value, str) else default
