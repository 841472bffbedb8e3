"""SenML in JSON (RFC 8428): records that share a base name, time, unit and value. Called by `decode.py`."""

import math
import re
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline.payloads.json_values import NOT_JSON, JsonValue, NotJsonError, as_text, parse_items
from pipeline.payloads.rows import Decoded, Found, Place
from pipeline.schemas import EPOCH, MICROSECOND
from pipeline.store.identity import GENERIC_METRIC

VERSION = 10  # of RFC 8428
_ABSOLUTE_FROM_S = 2**28  # section 4.5.3: a smaller time is relative to now
_NUMBERS, _TEXTS = ("bt", "bv", "bs", "bver", "t", "v", "s"), ("bn", "bu", "n", "u")
_VALUES = ("v", "vb", "vs", "vd", "s")
_DEVICE_URN = re.compile(r"(urn:dev:[^:]+:[^:/_]+)(?:[:/_](.+))?", re.DOTALL)  # RFC 9039: what follows the device names a part of it
_NAME = re.compile(r"(.+)[/:](.+)", re.DOTALL)

Record = dict[str, JsonValue]


@dataclass
class _Base:
    """What the records so far say for those that follow."""

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


def decode_senml(messages: pl.DataFrame) -> Decoded:
    """Decode packs: values and booleans (1 or 0) are readings, sums are readings of `<metric>_sum`, texts and data are none.

    Args:
        messages: as `MESSAGES_SCHEMA`, and received_at: the now that relative times are relative to.

    Returns:
        Readings with stamps in microseconds since 1970.
    """
    found = Found()
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
            _read_pack(found, pack, received_at)
        else:
            found.refuse(whole, *fault)
    return found.decoded()


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


def _read_pack(found: Found, pack: list[tuple[Place, Record]], received_at: datetime) -> None:
    base = _Base()
    for place, record in pack:
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
            found.refuse(place, "no_reading", f"A SenML record requires one of {', '.join(_VALUES)}; got none of them.")


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
