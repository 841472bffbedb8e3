"""Which column of a file means what: inferred from its header, corrected by the user's flags.

A file is `long` (one reading per row) or `wide` (one stamp and many quantities per row). Called by `ingest.py` once for each file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from pipeline.errors import CausalityError, DataError
from pipeline.ingest.raw import MISSING_TEXTS

Layout = Literal["long", "wide"]

DATE_PARTS = ("year", "month", "day", "hour", "minute", "second")

# Lower-case names by role, the most specific first. `y` is a value only beside `ds` (Nixtla, Prophet): elsewhere it is an axis.
KNOWN: dict[str, tuple[str, ...]] = {
    "stamp": ("ts", "timestamp", "event_time", "datetime", "date_time"),
    "day": ("time", "date", "ds"),  # only where no stamp is spread over columns (year, month, day; date, time)
    "received_at": ("received_at", "arrived_at", "available_at"),
    "seq": ("seq", "sequence", "sequence_number", "source_seq"),
    "quality": ("quality", "quality_code"),
    "unit": ("unit", "units", "uom"),
    "series_id": ("series_id", "unique_id", "series", "item_id", "tag", "tag_name", "point_id"),
    "device_id": ("device_id", "device", "sensor_id", "sensor", "deviceid", "meter_id", "station", "station_id"),
    "metric": ("metric", "metric_name", "variable", "quantity", "parameter"),
    "value": ("value", "val", "reading", "measurement"),
}
OPTIONAL_ROLES = ("received_at", "seq", "quality", "unit", "series_id", "device_id", "metric")
INDEX_NAMES = ("", "no", "no.", "nr", "index", "idx", "row", "id", "unnamed: 0", "__index_level_0__")


class NoReadingsError(DataError):
    """A file whose columns describe no readings: a look-up table, a log. In a folder such a file is left out, and said so."""


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """The column that plays each role; empty where the file has none, or where it shall be inferred.

    Attributes:
        ts: the stamp; several columns are put together (year, month, day, hour; or date, time).
        value: one column in the long layout, one for each quantity in the wide one.
        series_id: whole identity of a series, kept as it is.
        device_id: device, for use with `metric`, or with the column names of a wide file.
        metric: quantity measured.
        unit: unit of the value.
        quality: the device's own code, 0 is good.
        received_at: when the reading was first seen.
        seq: the device's sequence number.
        layout: one reading per row, or one stamp and many quantities.
    """

    ts: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    series_id: str | None = None
    device_id: str | None = None
    metric: str | None = None
    unit: str | None = None
    quality: str | None = None
    received_at: str | None = None
    seq: str | None = None
    layout: Layout | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that plays a role, without repetition."""
        single = (getattr(self, role) for role in OPTIONAL_ROLES)
        return tuple(dict.fromkeys([*self.ts, *(name for name in single if name is not None), *self.value]))


def infer_mapping(columns: Sequence[str], given: ColumnMapping | None = None, *, source: str = "the input") -> ColumnMapping:
    """Complete what the user gave by what the names of the columns say.

    >>> infer_mapping(["unique_id", "ds", "y"]).value
    ('y',)
    >>> infer_mapping(["date", "HUFL", "OT"]).layout
    'wide'

    Args:
        columns: names in the order of the file.
        given: roles that the user fixed; the rest is inferred.
        source: name of the file, for messages.

    Returns:
        A mapping with `ts`, `value` and `layout` filled in.

    Raises:
        DataError: when a given column does not exist; it lists what exists.
        CausalityError: when the values were filled in with hindsight.
        NoReadingsError: when no stamp or no value can be found.
    """
    given = given or ColumnMapping()
    if any(name.strip().lower() == "knowledge_time" for name in columns):
        raise CausalityError(
            f"Readings require values as they were measured; got {source} with a column knowledge_time: gaps in it were filled in from "
            "both sides. Ingest the readings themselves; filled history is for reports (docs/causality.md)."
        )
    _require_existing(columns, given, source)
    ts = given.ts or _infer_ts(columns, given, source)
    taken = [*given.columns, *ts]
    found: dict[str, str | None] = {}
    for role in OPTIONAL_ROLES:
        found[role] = getattr(given, role) or _find(columns, KNOWN[role], taken)
        taken += [name for name in (found[role],) if name is not None]
    if given.series_id is None and (given.device_id is not None or given.metric is not None):
        found["series_id"] = None
    has_id = found["series_id"] is not None  # it names the whole series: device and metric are read out of it
    mapping = ColumnMapping(
        ts=ts,
        value=given.value,
        series_id=found["series_id"],
        device_id=None if has_id else found["device_id"],
        metric=None if has_id else found["metric"],
        unit=found["unit"],
        quality=found["quality"],
        received_at=found["received_at"],
        seq=found["seq"],
        layout=given.layout,
    )
    return _with_values(mapping, [name for name in columns if name not in taken], source)


def prune_wide(mapping: ColumnMapping, rows: pl.DataFrame) -> tuple[ColumnMapping, tuple[str, ...]]:
    """Leave out the columns of a wide file that hold no quantity: text (a wind direction) and row numbers.

    Assumes: `rows` is the first batch of the file; its verdict holds for the rest.

    Returns:
        The mapping with the remaining value columns, and the names left out.
    """
    skipped = tuple(name for name in mapping.value if _is_row_number(rows[name]) or not _is_mostly_numeric(rows[name]))
    return replace(mapping, value=tuple(name for name in mapping.value if name not in skipped)), skipped


def decimal_comma(column: pl.Series) -> str | None:
    """Return the first of a column's numbers where most of them have a comma for the decimal mark, as `1,5`; else None."""
    text = column.cast(pl.String).str.strip_chars()
    said = text.filter(~text.is_in(MISSING_TEXTS))
    found = said.filter(said.str.contains(r"^[+-]?\d+,\d+$"))
    return found[0] if len(found) > len(said) / 2 else None


def _listing(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in columns[:12])
    return f"{shown} and {len(columns) - 12} more" if len(columns) > 12 else shown or "no columns"


def _require_existing(columns: Sequence[str], given: ColumnMapping, source: str) -> None:
    missing = [name for name in given.columns if name not in columns]
    if missing:
        raise DataError(
            f"The column mapping requires columns that {source} has; got {_listing(missing)}. "
            f"Name some of the columns it has: {_listing(columns)}."
        )


def _find(columns: Sequence[str], names: Sequence[str], taken: Sequence[str]) -> str | None:
    by_lower = {column.strip().lower(): column for column in reversed(columns) if column not in taken}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _infer_ts(columns: Sequence[str], given: ColumnMapping, source: str) -> tuple[str, ...]:
    stamp = _find(columns, KNOWN["stamp"], given.columns)
    if stamp is not None:
        return (stamp,)
    parts = [_find(columns, [part], given.columns) for part in DATE_PARTS]
    if all(parts[:3]):
        return tuple(part for part in parts if part is not None)
    date, time = (_find(columns, [name], given.columns) for name in ("date", "time"))
    if date is not None and time is not None:
        return (date, time)
    found = _find(columns, KNOWN["day"], given.columns)
    if found is None:
        raise NoReadingsError(f"{source} requires a column of timestamps; got {_listing(columns)}. Name it with --ts.")
    return (found,)


def _with_values(mapping: ColumnMapping, rest: Sequence[str], source: str) -> ColumnMapping:
    """Fill in `value` and `layout` from the columns that play no other role."""
    candidates = mapping.value or tuple(rest)
    if not candidates:
        raise NoReadingsError(f"{source} requires a column of values; got only {_listing(mapping.columns)}. Name it with --value.")
    names = [*KNOWN["value"], *(["y"] if mapping.ts[-1].strip().lower() == "ds" else [])]
    generic = _find(candidates, names, ())
    is_whole_id = mapping.series_id is not None or mapping.metric is not None
    has_id = is_whole_id or mapping.device_id is not None
    if len(candidates) == 1:
        is_long = generic is not None or is_whole_id or mapping.layout == "long"
    else:
        is_long = generic is not None and not mapping.value and (has_id or mapping.layout == "long")  # the others are left out, and said so
    if is_long and mapping.layout != "wide":
        return _as_long(replace(mapping, value=(generic or candidates[0],)))
    if is_whole_id or mapping.layout == "long":
        raise NoReadingsError(
            f"{source} requires one column of values beside the id of its series; got {_listing(candidates)}. Name it with --value."
        )
    return replace(mapping, value=candidates, layout="wide")


def _as_long(mapping: ColumnMapping) -> ColumnMapping:
    """Set the layout; a device that measures one unnamed quantity is a series by itself."""
    if mapping.series_id is None and mapping.metric is None:
        return replace(mapping, layout="long", series_id=mapping.device_id, device_id=None)
    return replace(mapping, layout="long")


def _is_row_number(column: pl.Series) -> bool:
    if column.name.strip().lower() not in INDEX_NAMES or len(column) < 3:
        return False
    numbers = column.cast(pl.Int64, strict=False)
    return numbers.null_count() == 0 and bool((numbers.diff().drop_nulls() == 1).all())


def _is_mostly_numeric(column: pl.Series) -> bool:
    """Whether at least half of what the column says is a number; an empty one may fill up later."""
    if column.dtype.is_numeric() or column.dtype == pl.Null:
        return True
    if column.dtype != pl.String:
        return False
    text = column.str.strip_chars()
    said = text.filter(~text.is_in(MISSING_TEXTS))
    return said.cast(pl.Float64, strict=False).null_count() <= len(said) / 2
