"""Judges raw rows: each becomes a typed reading or a rejected one with its reason, its position and its bytes; none is dropped.

All in Polars expressions, a batch at a time. Units are judged afterwards, by `units.py`. Called by `ingest.py` and `known_future.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from pipeline.errors import SettingsError
from pipeline.ingest.mapping import ColumnMapping
from pipeline.ingest.names import LONGEST_NAME, LONGEST_UNIT, UNPRINTABLE, identify, in_one_spelling, is_unusable
from pipeline.ingest.raw import MISSING_TEXTS, RawBatch, said
from pipeline.ingest.timestamps import StampRules, compose_stamp, parse_stamps
from pipeline.schemas import UTC_US, Quarantine
from pipeline.store.identity import with_series_id

STAMP_REQUIRES = {
    "missing_timestamp": "A reading requires a timestamp",
    "unparseable_timestamp": "A timestamp requires ISO 8601 or an epoch number",
    "naive_timestamp": "A timestamp requires an offset, Z or a declared zone",
    "ambiguous_local_time": "A local time requires an offset in the hour that a clock change repeats",
    "nonexistent_local_time": "A local time requires an hour that no clock change leaves out",
}
# Reasons to reject that a person may overrule, for they may be wrong: it was a backfill, or our own clock that was behind.
ACCEPTABLE = ("stale_timestamp", "future_timestamp")
# No sensor measures it, and its square is still finite: FLT_MAX and 1e300 are how devices say that they have no value.
LARGEST_VALUE = 1e30
_SHOWN_CHARACTERS = 80  # of an offending value, in its error text
_PRINTABLE = "{} requires at most {} bytes of text that can be shown"


@dataclass(frozen=True)
class Rules:
    """What a reading is held against.

    Attributes:
        now: the present, UTC.
        max_future: how far a stamp may be ahead of its arrival, or of now.
        earliest_year: stamps before it come from a clock that lost its battery.
        device: the device of a file that names none.
        stamps: how stamps are read.
        max_age: how far a stamp may be behind an arrival that is known; None is any age.
        accept: reasons, of `ACCEPTABLE`, for which nothing is rejected; what is ahead of now stays ahead of it.
    """

    now: datetime
    max_future: timedelta
    earliest_year: int
    device: str
    stamps: StampRules
    max_age: timedelta | None = None
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to overrule a reason that leaves nothing to store.

        Raises:
            SettingsError: naming it.
        """
        others = sorted(set(self.accept) - set(ACCEPTABLE))
        if others:
            raise SettingsError(f"--accept requires one of {', '.join(ACCEPTABLE)}; got {', '.join(others)}. The others cannot be stored.")


@dataclass(frozen=True)
class Verdict:
    """A batch after validation: every row, or every cell that says something, is in one of the two frames.

    Attributes:
        accepted: row (number in the batch), cell (column of a wide file, else null), device_id, metric, series_id, ts, value,
            unit (as sent), quality, received_at (null where the file does not say) and source_seq.
        rejected: position, payload, error_code and error_text.
        num_empty: cells of a wide file that hold no reading.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    num_empty: int


@dataclass(frozen=True)
class Check:
    """One reason to reject.

    Attributes:
        code: as stored in quarantine.
        fails: true where a row must be rejected.
        requires: first half of the error text.
        got: the offending value.
        advice: what to do, as a sentence; follows the offending value.
    """

    code: str
    fails: pl.Expr
    requires: str
    got: pl.Expr
    advice: str = ""


def validate(batch: RawBatch, mapping: ColumnMapping, rules: Rules) -> Verdict:
    """Split a batch into readings and rejected rows.

    In a wide file a row whose stamp cannot be used is rejected once, as a row; then each cell is judged by itself.

    Args:
        batch: rows as a reader gave them.
        mapping: complete, as `infer_mapping` returns it.
        rules: what to hold them against.
    """
    rows, bad_rows = split(_identify(batch, mapping, rules), _row_checks(rules, is_wide=mapping.layout == "wide"))
    cells, num_empty = _cells(batch, mapping, rows)
    accepted, bad_cells = split(cells, _cell_checks(is_text=cells.schema["raw_value"] == pl.String, is_wide=mapping.layout == "wide"))
    rejected = pl.concat([reject(batch, bad_rows), reject(batch, bad_cells)])
    return Verdict(accepted.select(_ACCEPTED).with_columns(pl.col("quality").fill_null(0)), rejected, num_empty)


def split(frame: pl.DataFrame, checks: Sequence[Check]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take out the rows that fail a check; the first that fails is the reason.

    Returns:
        The good rows, and the bad ones with error_code and error_text.
    """
    code = pl.coalesce(pl.when(check.fails).then(pl.lit(check.code)) for check in checks)
    judged = frame.with_columns(code.alias("error_code"))
    text = pl.coalesce(
        pl.when(pl.col("error_code") == check.code).then(
            pl.concat_str(pl.lit(f"{check.requires}; got "), _shown(check.got), pl.lit(f". {check.advice}".rstrip())),
        )
        for check in checks
    )
    bad = judged.filter(pl.col("error_code").is_not_null()).with_columns(text.alias("error_text"))
    return judged.filter(pl.col("error_code").is_null()).drop("error_code"), bad


def reject(batch: RawBatch, bad: pl.DataFrame) -> pl.DataFrame:
    """Describe bad rows as quarantine wants them: position, payload, error_code, error_text.

    Args:
        batch: where they came from.
        bad: row, cell, error_code and error_text.
    """
    cell = pl.concat_str(pl.lit(":"), "cell").fill_null("")
    evidence = batch.evidence(bad["row"]).hstack(bad.select("cell", "error_code", "error_text"))
    return evidence.select((pl.col("position") + cell).alias("position"), "payload", "error_code", "error_text")


_ACCEPTED = ("row", "cell", "device_id", "metric", "series_id", "ts", "value", "unit", "quality", "received_at", "source_seq")


def quarantined(rejected: pl.DataFrame, connector: str, now: datetime) -> pl.DataFrame:
    """Return rejected rows as rows of `Quarantine`, which came in by a connector just now."""
    received_at = pl.lit(now, UTC_US)
    return Quarantine.conform(
        rejected.with_columns(connector=pl.lit(connector), received_at=received_at, ingest_date=received_at.dt.date())
    )


def _shown(got: pl.Expr) -> pl.Expr:
    return (
        got.cast(pl.String).str.slice(0, _SHOWN_CHARACTERS).str.replace_all(UNPRINTABLE, "\N{REPLACEMENT CHARACTER}").fill_null("nothing")
    )


def _identify(batch: RawBatch, mapping: ColumnMapping, rules: Rules) -> pl.DataFrame:
    """Return one row for each row of the batch with all that is known before looking at its value."""
    rows = batch.rows
    raw_stamp = compose_stamp(rows, mapping.ts)
    received = pl.Series("", [None], dtype=UTC_US).new_from_index(0, len(rows))
    received_error = pl.Series("", [None], dtype=pl.String).new_from_index(0, len(rows))
    if mapping.received_at is not None:
        received, received_error = parse_stamps(rows[mapping.received_at], rules.stamps).get_columns()
    fields = rows.select(
        pl.int_range(pl.len()).alias("row"),
        said(mapping.unit).alias("unit"),
        said(mapping.quality).alias("raw_quality"),
        said(mapping.seq).alias("raw_seq"),
        said(mapping.received_at).alias("raw_received"),
        pl.lit(None, pl.String).alias("cell"),
    )
    return (
        pl.DataFrame({"ts_text": raw_stamp.cast(pl.String), "received_at": received, "received_error": received_error})
        .hstack(parse_stamps(raw_stamp, rules.stamps).rename({"stamp": "ts"}))
        .hstack([*fields.get_columns(), *identify(rows, mapping, rules.device).get_columns(), batch.origins["line"]])
        .with_columns(
            pl.col("raw_quality").cast(pl.Int16, strict=False).alias("quality"),
            pl.col("raw_seq").cast(pl.Int64, strict=False).fill_null(pl.when(pl.col("raw_seq").is_null()).then("line")).alias("source_seq"),
        )
    )


def _row_checks(rules: Rules, *, is_wide: bool) -> list[Check]:
    earliest = datetime(rules.earliest_year, 1, 1, tzinfo=UTC)
    stamp, received_error = pl.col("ts_text"), pl.col("received_error")
    max_age = None if "stale_timestamp" in rules.accept else rules.max_age
    is_stale = pl.lit(value=False) if max_age is None else pl.col("ts") < pl.col("received_at") - max_age
    is_nameless = pl.col("device_id").is_null() if is_wide else pl.col("series_id").is_null()
    return [
        *(Check(code, pl.col("stamp_error") == code, requires, stamp) for code, requires in STAMP_REQUIRES.items()),
        Check("implausible_timestamp", pl.col("ts") < earliest, f"A timestamp requires the year {rules.earliest_year} or later", stamp),
        _future_check(rules, stamp),
        Check(
            "stale_timestamp",
            is_stale,
            f"A timestamp requires an instant at most {_said(rules.max_age)} (ingest.max_age) before its arrival",
            stamp,
            "Check the device's clock; docs/event_time.md says how a backfill is let in.",
        ),
        Check("missing_series", is_nameless, "A reading requires a series: a device and a metric", pl.lit("none of them, or only one")),
        _name_check("device_id"),
        _name_check("metric"),  # in a wide file null here, and judged with its cell
        Check("invalid_unit", is_unusable("unit", LONGEST_UNIT), _PRINTABLE.format("unit", LONGEST_UNIT), pl.col("unit")),
        Check(
            "invalid_received_at",
            received_error.is_not_null() & (received_error != "missing_timestamp"),
            "received_at requires a timestamp with a zone",
            pl.col("raw_received"),
        ),
        Check(
            "invalid_seq",
            pl.col("raw_seq").is_not_null() & pl.col("source_seq").is_null(),
            "seq requires a whole number",
            pl.col("raw_seq"),
        ),
        Check(
            "invalid_quality",
            pl.col("raw_quality").is_not_null() & pl.col("quality").is_null(),
            "quality requires a whole number below 32768",
            pl.col("raw_quality"),
        ),
    ]


def _future_check(rules: Rules, stamp: pl.Expr) -> Check:
    now = pl.lit(rules.now, UTC_US)
    reference = now if "future_timestamp" in rules.accept else pl.min_horizontal("received_at", now)  # a gateway's clock may be ahead, too
    return Check(
        "future_timestamp",
        pl.col("ts") > reference + rules.max_future,
        f"A timestamp requires an instant that is not in the future, but for at most {_said(rules.max_future)} (ingest.max_future)",
        stamp,
        "Check the clock of the device, and ours.",
    )


def _said(length: timedelta | None) -> str:
    """Return a length of time in words, in its greatest unit that leaves none over.

    >>> _said(timedelta(days=30)), _said(timedelta(minutes=90)), _said(timedelta(seconds=1))
    ('30 days', '90 minutes', '1 second')
    """
    if length is None:
        return "any length"
    units = {"day": timedelta(days=1), "hour": timedelta(hours=1), "minute": timedelta(minutes=1), "second": timedelta(seconds=1)}
    for name, unit in units.items():
        if length and not length % unit:
            return f"{length // unit} {name}{'s' if length != unit else ''}"
    return f"{length.total_seconds():g} seconds"


def _name_check(name: str) -> Check:
    return Check("invalid_series", is_unusable(name), _PRINTABLE.format(name, LONGEST_NAME), pl.col(name))


def _cells(batch: RawBatch, mapping: ColumnMapping, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return one row for each value, with what is known of its row, and the number of empty cells of a wide file."""
    values = batch.rows[rows["row"]].select(mapping.value)
    if mapping.layout == "long":
        return _with_number(rows.with_columns(values.to_series().alias("raw_value"))), 0
    if not all(dtype.is_numeric() for dtype in values.dtypes):
        values = values.cast(pl.String)
    numbers = pl.Series("number", np.tile(np.arange(len(rows)), len(mapping.value)))
    melted = values.unpivot(variable_name="cell", value_name="raw_value").with_columns(numbers)
    filled = melted.filter(~_is_empty(melted.schema["raw_value"]))
    known = rows[filled["number"]].drop("cell", "metric")
    cells = known.hstack(filled.select("cell", "raw_value")).with_columns(pl.col("cell").str.strip_chars().alias("metric"))
    return _with_number(with_series_id(in_one_spelling(cells))), len(melted) - len(filled)


def _is_empty(dtype: pl.DataType) -> pl.Expr:
    """Whether a cell of a wide file says nothing; NaN is how a table of floats leaves a cell empty."""
    value = pl.col("raw_value")
    if dtype == pl.String:
        return value.is_null() | value.str.strip_chars().is_in(MISSING_TEXTS)
    return value.is_null() | (value.is_nan() if dtype.is_float() else pl.lit(value=False))


def _with_number(cells: pl.DataFrame) -> pl.DataFrame:
    if cells.schema["raw_value"].is_numeric():
        return cells.with_columns(pl.col("raw_value").cast(pl.Float64).alias("value"))
    text = pl.col("raw_value").cast(pl.String).str.strip_chars()
    return cells.with_columns(text.cast(pl.Float64, strict=False).alias("value"), text.alias("raw_value"))


def _cell_checks(*, is_text: bool, is_wide: bool) -> list[Check]:
    raw, number = pl.col("raw_value"), pl.col("value")
    requires = "A value requires a number"
    is_missing = raw.is_null() | (raw.is_in(MISSING_TEXTS) & number.is_null()) if is_text else raw.is_null()
    return [
        *([_name_check("metric")] if is_wide else []),
        Check("missing_value", is_missing, requires, raw),
        Check("not_a_number", number.is_null(), requires, raw),
        Check("nan_or_infinite", ~number.is_finite(), "A value requires a finite number", raw),
        Check("implausible_value", number.abs() > LARGEST_VALUE, f"A value requires at most {LARGEST_VALUE:g}, either sign", raw),
    ]
