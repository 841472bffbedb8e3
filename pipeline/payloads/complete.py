"""What decoders leave open, filled in for all readings at once: epoch numbers, devices that topics name, arrival, numbers of items.

Called by `decode.py`.
"""

from collections.abc import Sequence

import polars as pl

from pipeline.ingest.raw import ORIGIN_SCHEMA, RawBatch, position
from pipeline.ingest.timestamps import EpochUnit, read_epochs
from pipeline.payloads.rows import WHOLE, Decoded, refused
from pipeline.schemas import UTC_US
from pipeline.store.identity import device_and_metric

COLUMNS = ("ts", "device_id", "metric", "value", "unit", "quality", "seq", "received_at")
SOURCE = "message"  # what positions begin with: "message:17[3]" is reading 3 of message 17
ENVELOPES_SCHEMA = pl.Schema(
    {"received_at": UTC_US, "device_id": pl.String(), "metric": pl.String(), "ts": pl.String(), "seq": pl.String()}
)
_NO_READING = ("no_reading", "A message requires at least one reading; got none.")
_ISO = "%Y-%m-%dT%H:%M:%S%.6fZ"


def complete(decoded: Decoded, envelopes: pl.DataFrame, unit: EpochUnit | None, *, is_stamped_on_arrival: bool) -> Decoded:
    """Complete the readings of one format and route by what is said around them.

    Args:
        decoded: what the decoder found.
        envelopes: as `ENVELOPES_SCHEMA`, one row for each line: what fills in where a reading lacks it.
        unit: the unit of epoch numbers; None infers it from the magnitude of each.
        is_stamped_on_arrival: whether a reading without a stamp was measured when it came.

    Returns:
        The same, its rows with `COLUMNS`; `ts` and `received_at` are instants where all of them can be read here, else text.
    """
    rows = decoded.rows
    around = envelopes[rows["line"]]
    said = rows.select(
        "line",
        "item",
        "payload",
        *(_or(rows, around, name) for name in ("device_id", "metric", "seq")),
        pl.col("value").replace({"true": "1", "false": "0"}),
        "unit",
        "quality",
    )
    if rows["series_id"].null_count() < len(rows):
        said = said.with_columns(_parts_of_series(rows["series_id"], said))
    arrival = around["received_at"]
    ts = _filled(read_epochs(rows["ts"], unit), around["ts"])
    if is_stamped_on_arrival:
        ts = _filled(ts, arrival)
    received_at = _filled(read_epochs(rows["received_at"], unit), arrival) if rows["received_at"].null_count() < len(rows) else arrival
    return Decoded(said.with_columns(ts.alias("ts"), received_at.alias("received_at")), decoded.broken)


def together(parts: Sequence[Decoded]) -> Decoded:
    """Put completed parts together; stamps that are text in one of them are text in all.

    Args:
        parts: at least one.
    """
    frames = [part.rows for part in parts]
    for name in ("ts", "received_at"):
        if len({frame.schema[name] for frame in frames}) > 1:
            frames = [frame.with_columns(_as_text(frame[name])) for frame in frames]
    return Decoded(pl.concat(frames), pl.concat([part.broken for part in parts]))


def unanswered(decoded: Decoded, messages: pl.DataFrame) -> pl.DataFrame:
    """Return, as broken, the messages that neither a row nor a broken item answers for.

    Args:
        decoded: what came of them.
        messages: line and payload.
    """
    heard = pl.concat([decoded.rows["line"], decoded.broken["line"]]).unique().implode()
    return refused(messages.filter(~pl.col("line").is_in(heard)).with_columns(WHOLE), _NO_READING)


def as_batch(decoded: Decoded, messages: pl.DataFrame, *, is_numbered: bool = False) -> RawBatch:
    """Number the readings of each message of one format, and account for every message.

    Args:
        decoded: completed.
        messages: line and payload of every message of this format.
        is_numbered: whether items have numbers already, which stay the same when more of a message can be read.
    """
    rows = decoded.rows.sort("line", "item", maintain_order=True)
    broken = pl.concat([_whole(decoded, messages), unanswered(decoded, messages)])
    if not is_numbered:
        rows, broken = _numbered(rows, broken)
    return RawBatch(
        SOURCE,
        rows.select(COLUMNS),
        rows.select(ORIGIN_SCHEMA.names()),
        broken.select(position(SOURCE), "payload", "error_code", "error_text"),
    )


def _whole(decoded: Decoded, messages: pl.DataFrame) -> pl.DataFrame:
    """Return what is broken; a message without any good reading is broken once, as a whole, for its first reason."""
    broken = decoded.broken
    if broken.is_empty():
        return broken
    has_rows = pl.col("line").is_in(decoded.rows["line"].unique().implode())
    whole = broken.filter(~has_rows).sort("line", "item", maintain_order=True).unique("line", keep="first", maintain_order=True)
    whole = whole.drop("payload", "item").join(messages.select("line", "payload"), on="line", maintain_order="left")
    return pl.concat([broken.filter(has_rows), whole.with_columns(WHOLE).select(broken.columns)])


def _or(rows: pl.DataFrame, around: pl.DataFrame, name: str) -> pl.Series:
    """Return a column of the rows, filled up from around them."""
    if around[name].null_count() == len(around):
        return rows[name]
    return rows[name].zip_with(rows[name].is_not_null(), around[name])


def _parts_of_series(series_id: pl.Series, said: pl.DataFrame) -> list[pl.Series]:
    """Read device and metric out of the whole identity of a series, where there is one: as `validate` does for files."""
    parts = series_id.to_frame("whole").select(device_and_metric("whole"))
    return [part.zip_with(series_id.is_not_null(), said[part.name]) for part in parts]


def _filled(stamps: pl.Series, others: pl.Series) -> pl.Series:
    """Fill up stamps; where both are not of one kind, all are text."""
    if not stamps.null_count() or others.null_count() == len(others):
        return stamps
    if stamps.null_count() == len(stamps):
        return others
    if stamps.dtype != others.dtype:
        stamps, others = _as_text(stamps), _as_text(others)
    return stamps.zip_with(stamps.is_not_null(), others)


def _as_text(stamps: pl.Series) -> pl.Series:
    return stamps if stamps.dtype == pl.String else stamps.dt.strftime(_ISO)


def _numbered(rows: pl.DataFrame, broken: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Number what came out of each message from 0, where rows are in order; what is alone in its message has no number."""
    rows, broken = rows.with_row_index("index"), broken.sort("line", "item", maintain_order=True).with_row_index("index")
    places = [frame.select("line", "item", "index", is_row=pl.lit(value)) for frame, value in ((rows, True), (broken, False))]
    both = pl.concat(places).sort("line", "item", maintain_order=True)
    is_alone = pl.col("line").is_unique()
    both = both.with_columns(pl.when(~is_alone).then(pl.int_range(pl.len(), dtype=pl.Int64).over("line")).alias("item"))
    numbers = [both.filter(is_row).sort("index")["item"] for is_row in (pl.col("is_row"), ~pl.col("is_row"))]
    return rows.with_columns(numbers[0]), broken.with_columns(numbers[1])
