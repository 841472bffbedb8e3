"""Turns what files call a timestamp into UTC microseconds, and says of every other stamp why it cannot be one.

Stamps with an offset or `Z` need nothing; naive ones need a declared zone; epoch numbers need a unit, given or inferred by magnitude.
Called by `validate.py` for event times and arrival times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from pipeline.errors import SettingsError
from pipeline.ingest.mapping import DATE_PARTS
from pipeline.ingest.raw import MISSING_TEXTS
from pipeline.schemas import UTC_US

EpochUnit = Literal["s", "ms", "us", "ns"]

EPOCH_RULE = "median below 1e11: s, below 1e14: ms, below 1e17: us, else ns"  # 1e11 s is the year 5138, 1e11 ms is 1973
_MICROSECONDS: dict[EpochUnit, tuple[int, int]] = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}  # times, per
_YEAR_9999_US = 253_402_300_799_000_000
_NAIVE_US = pl.Datetime("us")

_ZONE = r"(?i)\s*(z|utc|gmt|[+-]\d{2}:?\d{2}|[+-]\d{2})$"  # looked for only behind a time of day: 2016-07-01 ends like an offset
_TIME_OF_DAY = r"\d[Tt ]\s*\d"
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
_COMPACT_DATE = r"^(19|20)\d{6}(\d{6})?$"  # 20160701 and 20160701120000
_USUAL = {"Z": "%Y-%m-%dT%H:%M:%S%.fZ", "+00:00": "%Y-%m-%dT%H:%M:%S%.f+00:00"}  # by the end of a stamp
_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y%m%d %H%M%S", "%Y%m%d %H%M", "%Y%m%d%H%M%S", "%Y%m%d")


@dataclass(frozen=True)
class StampRules:
    """What the user declares about the stamps of a file.

    Attributes:
        time_zone: IANA zone of naive stamps; None refuses them.
        epoch_unit: unit of epoch numbers; None leaves numbers unread.
    """

    time_zone: str | None = None
    epoch_unit: EpochUnit | None = None

    def __post_init__(self) -> None:
        """Refuse a zone or a unit that does not exist.

        Raises:
            SettingsError: naming it.
        """
        if self.epoch_unit is not None and self.epoch_unit not in get_args(EpochUnit):
            raise SettingsError(f"--epoch-unit requires one of s, ms, us, ns; got {self.epoch_unit!r}. Correct it.")
        if self.time_zone is None:
            return
        try:
            pl.Series([0]).cast(_NAIVE_US).dt.replace_time_zone(self.time_zone)
        except pl.exceptions.ComputeError as error:
            raise SettingsError(
                f"--time-zone requires an IANA zone such as UTC or Europe/Berlin; got {self.time_zone!r}. Correct it."
            ) from error


def parse_stamps(column: pl.Series, rules: StampRules) -> pl.DataFrame:
    """Read one column of stamps, each row by its own form.

    >>> parse_stamps(pl.Series(["2026-01-01T00:00:00+01:00", "soon"]), StampRules())["stamp_error"].to_list()
    [None, 'unparseable_timestamp']

    Args:
        column: text, numbers, dates or datetimes, any length.
        rules: the declared zone and epoch unit.

    Returns:
        `stamp` (UTC, null where unusable) and `stamp_error` (null where usable), in the order of `column`: missing_timestamp,
        unparseable_timestamp, naive_timestamp, ambiguous_local_time or nonexistent_local_time.
    """
    dtype = column.dtype
    frame = column.alias("raw").to_frame()
    no_error = pl.lit(None, pl.String)
    if dtype.is_numeric():
        return _judge(frame, _from_epoch(pl.col("raw"), rules.epoch_unit), no_error)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return _judge(frame, pl.col("raw").cast(UTC_US), no_error)
    if isinstance(dtype, pl.Datetime) or dtype == pl.Date:
        return _judge(frame, *_localise(pl.col("raw").cast(_NAIVE_US), rules.time_zone))
    text = frame.cast(pl.String)
    stamp = _in_usual_form(text["raw"])
    if stamp is None:
        return _from_text(text, rules)
    usual = _judge(stamp.to_frame().with_columns(raw=text["raw"]), pl.col("usual"), no_error)
    others = (stamp.is_null() & text["raw"].is_not_null()).arg_true()
    if others.is_empty():
        return usual
    found = _from_text(text[others], rules)
    return usual.select(usual[name].scatter(others, found[name]) for name in usual.columns)


def infer_epoch_unit(column: pl.Series) -> EpochUnit | None:
    """Return the unit of a column's epoch numbers by their median (`EPOCH_RULE`); None where it holds none.

    >>> infer_epoch_unit(pl.Series(["1767225600000", "1767225660000"]))
    'ms'
    """
    if column.dtype == pl.String:
        column = column.filter(column.to_frame("raw").select(_is_epoch(pl.col("raw").str.strip_chars(), is_declared=False)).to_series())
    elif not column.dtype.is_numeric():
        return None
    median = column.cast(pl.Float64, strict=False).abs().median()
    return _unit_by_size(median)


def read_epochs(column: pl.Series, unit: EpochUnit | None) -> pl.Series:
    """Read the epoch numbers among texts, each by its own magnitude where no unit is declared; other texts stay as they are.

    >>> read_epochs(pl.Series(["1767225600", "1767225600000", "soon"]), None).to_list()
    ['2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z', 'soon']

    Args:
        column: text, any length.
        unit: of all its numbers; None decides for each by the borders of `EPOCH_RULE`.

    Returns:
        UTC microseconds where every text is a number that can be read; else text, with such numbers as ISO 8601.
    """
    raw = column.alias("raw").to_frame().select(pl.col("raw").str.strip_chars())
    number = raw.select(pl.when(_is_epoch(pl.col("raw"), is_declared=unit is not None)).then("raw").alias("number"))["number"]
    if number.null_count() == len(number):
        return column
    size = number.cast(pl.Float64, strict=False).abs()
    smallest, greatest = _unit_by_size(size.min()), _unit_by_size(size.max())
    if unit is None and smallest == greatest:
        unit = greatest
    scale = _scale_by_size(pl.col("size")) if unit is None else _MICROSECONDS[unit]
    stamps = pl.DataFrame({"number": number, "size": size}).select(_scaled(pl.col("number"), *scale).alias("ts"))["ts"]
    if stamps.null_count() == column.null_count():
        return stamps
    return column.to_frame("raw").select(pl.coalesce(stamps.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"), "raw").alias("ts"))["ts"]


def compose_stamp(rows: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Put the stamp together when several columns hold it: year, month, day, …, or a date and a time.

    Returns:
        One text for each row, or the column itself when there is only one.
    """
    if len(columns) == 1:
        return rows[columns[0]]
    texts = {name.strip().lower(): pl.col(name).cast(pl.String).str.strip_chars() for name in columns}
    if set(texts) <= set(DATE_PARTS):
        year, month, day = (texts.get(part, pl.lit("1")).str.zfill(2) for part in DATE_PARTS[:3])
        hour, minute, second = (texts.get(part, pl.lit("0")).str.zfill(2) for part in DATE_PARTS[3:])
        return rows.select(pl.format("{}-{}-{} {}:{}:{}", year, month, day, hour, minute, second).alias("ts"))["ts"]
    return rows.select(pl.concat_str(list(texts.values()), separator=" ").alias("ts"))["ts"]


def _judge(frame: pl.DataFrame, stamp: pl.Expr, error: pl.Expr) -> pl.DataFrame:
    """Evaluate stamps and errors; what has neither was missing or could not be read."""
    is_missing = pl.col("raw").is_null()
    if frame.schema["raw"] == pl.String:
        is_missing |= pl.col("raw").str.strip_chars().is_in(MISSING_TEXTS)
    return frame.with_columns(stamp.alias("stamp"), error.alias("error")).select(
        "stamp",
        pl.when(pl.col("stamp").is_not_null())
        .then(None)
        .when(is_missing)
        .then(pl.lit("missing_timestamp"))
        .otherwise(pl.col("error").fill_null("unparseable_timestamp"))
        .alias("stamp_error"),
    )


def _from_epoch(number: pl.Expr, unit: EpochUnit | None) -> pl.Expr:
    """Read numbers as time since 1970; whole ones exactly (nanoseconds need more digits than Float64 has), beyond the year 9999 as null."""
    return pl.lit(None, UTC_US) if unit is None else _scaled(number, *_MICROSECONDS[unit])


def _unit_by_size(size: object) -> EpochUnit | None:
    """Return the unit of a number by the borders of `EPOCH_RULE`; None for what is no number."""
    if not isinstance(size, float):
        return None
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def _scale_by_size(size: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return the scale of each number, as `_MICROSECONDS` has it, by the same borders."""
    times = pl.when(size < 1e11).then(1_000_000).when(size < 1e14).then(1_000).otherwise(1)
    return times, pl.when(size < 1e17).then(1).otherwise(1_000)


def _scaled(number: pl.Expr, times: int | pl.Expr, per: int | pl.Expr) -> pl.Expr:
    """Read numbers as instants: `times` microseconds each, over `per`."""
    real, whole = number.cast(pl.Float64, strict=False), number.cast(pl.Int64, strict=False)
    about = real * times / per
    micros = pl.when(whole == real).then(whole * times // per).otherwise(about.round().cast(pl.Int64, strict=False))
    return pl.when(about.abs() <= _YEAR_9999_US).then(micros).cast(UTC_US)


def _localise(wall: pl.Expr, zone: str | None) -> tuple[pl.Expr, pl.Expr]:
    """Place naive stamps in `zone`; the hour that a clock change repeats or leaves out is an error, not a guess."""
    if zone is None:
        return pl.lit(None, UTC_US), pl.when(wall.is_not_null()).then(pl.lit("naive_timestamp"))
    sure = wall.dt.replace_time_zone(zone, ambiguous="null", non_existent="null").dt.convert_time_zone("UTC")
    comes_twice = wall.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").is_not_null()
    reason = pl.when(comes_twice).then(pl.lit("ambiguous_local_time")).otherwise(pl.lit("nonexistent_local_time"))
    return sure, pl.when(wall.is_not_null() & sure.is_null()).then(reason)


def _is_epoch(text: pl.Expr, *, is_declared: bool) -> pl.Expr:
    """Whether a text is an epoch number; with no unit declared, eight or fourteen digits are a date."""
    is_number = text.str.contains(_NUMBER)
    return is_number if is_declared else is_number & ~text.str.contains(_COMPACT_DATE)


def _in_usual_form(text: pl.Series) -> pl.Series | None:
    """Read stamps in ISO 8601 and UTC, as most devices write them, in a seventh of the time; others are null. None if the first is one."""
    first = text.drop_nulls().head(1)
    if first.is_empty():
        return pl.Series("usual", [None], dtype=UTC_US).new_from_index(0, len(text))
    form = next((form for end, form in _USUAL.items() if first[0].endswith(end)), None)
    if form is None:
        return None
    return text.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC").alias("usual")


def _from_text(frame: pl.DataFrame, rules: StampRules) -> pl.DataFrame:
    """Split each stamp into wall time and zone, read the wall time by the first format that fits, and place it."""
    text = pl.col("raw").str.strip_chars()
    zone = pl.when(text.str.contains(_TIME_OF_DAY)).then(text.str.extract(_ZONE))
    body = pl.when(zone.is_null()).then(text).otherwise(text.str.replace(_ZONE, ""))
    body = body.str.replace("T", " ", literal=True).str.replace_all("/", "-", literal=True).str.replace(",", ".", literal=True)
    is_epoch = _is_epoch(text, is_declared=rules.epoch_unit is not None)
    frame = frame.with_columns(is_epoch.alias("is_epoch"), zone.alias("zone"), pl.when(~is_epoch).then(body).alias("body"))
    frame = frame.with_columns(_wall_times(frame["body"]).alias("wall"))
    local, local_error = _localise(pl.col("wall"), rules.time_zone)
    is_zoned = pl.col("zone").is_not_null()
    zoned = (pl.col("wall") - _offset(pl.col("zone"))).dt.replace_time_zone("UTC")
    epoch = pl.when("is_epoch").then(_from_epoch(text, rules.epoch_unit))
    return _judge(frame, pl.coalesce(epoch, pl.when(is_zoned).then(zoned).otherwise(local)), pl.when(~is_zoned).then(local_error))


def _wall_times(body: pl.Series) -> pl.Series:
    """Read wall times by the formats in turn, stopping as soon as nothing is left unread."""
    wall = body.str.to_datetime(_FORMATS[0], time_unit="us", strict=False)
    for form in _FORMATS[1:]:
        if wall.null_count() == body.null_count():
            break
        wall = wall.zip_with(wall.is_not_null(), body.str.to_datetime(form, time_unit="us", strict=False))
    return wall


def _offset(zone: pl.Expr) -> pl.Expr:
    """Turn `Z`, `+02`, `+0200` or `+02:00` into a duration; more than 18 hours, which no zone has, into null."""
    digits = zone.str.replace_all(r"\D", "")
    minutes = digits.str.slice(0, 2).cast(pl.Int64, strict=False) * 60 + digits.str.slice(2, 2).cast(pl.Int64, strict=False).fill_null(0)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    return pl.duration(minutes=pl.when(digits == "").then(0).when(minutes <= 18 * 60).then(sign * minutes))
