"""The regular grid: ticks are integers, labels are right edges, and each series keeps the offset that its own stamps have.

The tick k of a grid holds the stamps in (label − interval, label], where label = k · interval + offset since the epoch. Everything is
exact integer arithmetic in microseconds, so a leap day or a change of summer time is a tick like any other.
`pipeline.prepare.regularise` infers a series' grid once and stores it in the catalog; `tick_expr` and `label_expr` then place stamps on
it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from pipeline.errors import DataError
from pipeline.schemas import EPOCH, MICROSECOND, UTC_US

NICE_INTERVALS: tuple[timedelta, ...] = (
    *(timedelta(seconds=s) for s in (1, 2, 5, 10, 15, 30)),
    *(timedelta(minutes=m) for m in (1, 2, 5, 10, 15, 20, 30)),
    *(timedelta(hours=h) for h in (1, 2, 3, 4, 6, 8, 12)),
    *(timedelta(days=d) for d in (1, 7)),
)
SNAP_TOLERANCE = 0.10  # a clock that drifts or jitters by more than a tenth of its interval is not taken to mean the round number
OFFSET_SHARE = 0.90  # of the distinct stamps must agree on a residue before labels follow it
MIN_STAMPS = 3  # two stamps have one spacing, which may be a gap
# A grid is permanent, so a few odd stamps must not decide it. It needs more than half of the spacings at the median, and these must last a
# minute in all (devices send faster when they start) or be among ten stamps. Without a common spacing, twenty stamps take the median.
BURST, MANY_STAMPS = timedelta(minutes=1), 10
STAMPS_OF_ANY_SPACING = 20
FLOOR = timedelta(seconds=1)  # nothing finer is inferred: closer stamps are as often bursts as a spacing
FINEST = timedelta(milliseconds=1)  # nor asked for
MAX_GAP = 100_000  # ticks; a day of seconds, ten weeks of minutes: a longer hole (a lost clock, a reused device) gets no rows


@dataclass(frozen=True)
class Grid:
    """One series' grid.

    >>> from datetime import UTC
    >>> grid = Grid(timedelta(minutes=5), timedelta(minutes=2))
    >>> grid.label(grid.tick(datetime(2026, 1, 1, 14, 27, 0, 1, tzinfo=UTC))).isoformat()
    '2026-01-01T14:32:00+00:00'

    Attributes:
        interval: spacing of the labels, positive.
        offset: label of tick 0 since the epoch, in [0, interval).
    """

    interval: timedelta
    offset: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        """Refuse a grid without a spacing or with two names for one offset.

        Raises:
            DataError: with the sentence to show the user.
        """
        if self.interval <= timedelta(0) or not timedelta(0) <= self.offset < self.interval:
            raise DataError(
                f"A grid requires interval > 0 and 0 <= offset < interval; got {self.interval} and {self.offset}. "
                "Correct prepare.sample_interval."
            )

    def tick(self, instant: datetime) -> int:
        """Return the tick that holds `instant` (UTC-aware): a stamp on a label belongs to that label."""
        return -((EPOCH + self.offset - instant) // self.interval)

    def label(self, tick: int) -> datetime:
        """Return the right edge of `tick`, the instant at which it is complete."""
        return EPOCH + self.offset + tick * self.interval


def tick_expr(ts: str = "ts") -> pl.Expr:
    """Return the Int64 tick that each stamp of a column lies in, by the grid in `sample_interval_us` and `grid_offset_us` beside it."""
    before_us = pl.col("grid_offset_us") - pl.col(ts).dt.timestamp("us")
    return -(before_us // pl.col("sample_interval_us"))  # floor of the negative is the exact ceiling


def label_expr() -> pl.Expr:
    """Return the label of each `tick`, a UTC µs datetime, by the grid in `sample_interval_us` and `grid_offset_us` beside it."""
    return (pl.col("tick") * pl.col("sample_interval_us") + pl.col("grid_offset_us")).cast(UTC_US)


def closed_tick_expr(instant: datetime, allowed_lateness: timedelta) -> pl.Expr:
    """Return the last tick that has closed by `instant`, by the grid in `sample_interval_us` and `grid_offset_us`."""
    label_us = (instant - allowed_lateness - EPOCH) // MICROSECOND
    return (label_us - pl.col("grid_offset_us")) // pl.col("sample_interval_us")


def infer_grids(readings: pl.DataFrame, sample_interval: timedelta | None = None) -> pl.DataFrame:
    """Find each series' grid from the stamps of its readings.

    The interval is the median spacing of the distinct stamps, which gaps, duplicates and jitter do not move, rounded to the nearest round
    interval if that is within 10 %. It is decided once more than half of the spacings lie within 10 % of the median, over a minute or ten
    stamps; otherwise after twenty stamps. The offset is the residue that at least 90 % of the stamps share, else 0.

    Args:
        readings: series_id, ts (UTC µs); any order, duplicates allowed.
        sample_interval: the spacing of every series, if the user has set it; then a series need not wait for three stamps.

    Returns:
        series_id, sample_interval_us, grid_offset_us (Int64), one row for each series, sorted; both are null where the stamps do not
        decide the spacing, as fewer than three never do.
    """
    stamps = readings.select("series_id", us=pl.col("ts").dt.timestamp("us")).unique().sort("series_id", "us")
    spacing = pl.col("us").diff()
    intervals = stamps.group_by("series_id", maintain_order=True).agg(
        num_stamps=pl.len(), median_us=spacing.median().round().cast(pl.Int64)
    )
    if sample_interval is None:
        intervals = _snapped(intervals)
        intervals = intervals.join(_agreement(stamps, intervals), on="series_id", how="left", maintain_order="left")
        intervals = intervals.with_columns(sample_interval_us=pl.when(_is_told()).then(pl.col("sample_interval_us")))
    else:
        intervals = intervals.with_columns(sample_interval_us=pl.lit(Grid(sample_interval).interval // MICROSECOND, pl.Int64))
    return intervals.join(_offsets(stamps, intervals), on="series_id", how="left", maintain_order="left").select(
        "series_id",
        "sample_interval_us",
        grid_offset_us=pl.when(pl.col("sample_interval_us").is_not_null()).then(pl.col("residue").fill_null(0)),
    )


def grids_of(labels: pl.DataFrame) -> pl.DataFrame:
    """Return the grids, as `infer_grids`, that stored labels (series_id, ts) are on; no row for a series with fewer than two."""
    us = pl.col("ts").dt.timestamp("us")
    return (
        labels.sort("series_id", "ts")
        .group_by("series_id", maintain_order=True)
        .agg(sample_interval_us=us.diff().min(), grid_offset_us=us.first())
        .drop_nulls()
        .with_columns(pl.col("grid_offset_us") % pl.col("sample_interval_us"))
    )


def _snapped(intervals: pl.DataFrame) -> pl.DataFrame:
    """Add sample_interval_us: a round interval, else whole seconds, else whole milliseconds; never less than `FLOOR`."""
    nice = pl.DataFrame({"nice_us": [interval // MICROSECOND for interval in NICE_INTERVALS]}, schema={"nice_us": pl.Int64})
    median = pl.col("median_us")
    candidates = (pl.col("nice_us"), *((median / unit).round().cast(pl.Int64) * unit for unit in (1_000_000, 1_000)))
    close = [pl.when((median - candidate).abs() <= SNAP_TOLERANCE * candidate).then(candidate) for candidate in candidates]
    nearest = intervals.sort("median_us").join_asof(nice, left_on="median_us", right_on="nice_us", strategy="nearest")
    return nearest.with_columns(sample_interval_us=pl.max_horizontal(pl.coalesce(*close, median), FLOOR // MICROSECOND)).sort("series_id")


def _agreement(stamps: pl.DataFrame, intervals: pl.DataFrame) -> pl.DataFrame:
    """Return series_id and, for spacings within `SNAP_TOLERANCE` of the median, `agreeing` (their number) and `agreeing_us` (their sum)."""
    spacing, median = pl.col("spacing"), pl.col("median_us")
    return (
        stamps.with_columns(spacing=pl.col("us").diff().over("series_id"))
        .join(intervals.select("series_id", "median_us"), on="series_id")
        .filter((spacing - median).abs() <= SNAP_TOLERANCE * median)
        .group_by("series_id")
        .agg(agreeing=pl.len(), agreeing_us=spacing.sum())
    )


def _is_told() -> pl.Expr:
    """Whether the stamps decide an interval; a null `agreeing` means that no spacing agrees."""
    stamps, spacings = pl.col("num_stamps"), pl.col("num_stamps") - 1
    is_no_burst = (stamps >= MANY_STAMPS) | (pl.col("agreeing_us") >= BURST // MICROSECOND)
    agrees = (stamps >= MIN_STAMPS) & is_no_burst & (2 * pl.col("agreeing") > spacings)
    return agrees.fill_null(value=False) | (stamps >= STAMPS_OF_ANY_SPACING)


def _offsets(stamps: pl.DataFrame, intervals: pl.DataFrame) -> pl.DataFrame:
    """Return series_id and the residue (µs) that nearly all of its stamps share; no row where there is none."""
    return (
        stamps.join(intervals.filter(pl.col("num_stamps") >= MIN_STAMPS), on="series_id")
        .group_by("series_id", "num_stamps", residue=pl.col("us") % pl.col("sample_interval_us"))
        .agg(share=pl.len())
        .filter(pl.col("share") >= OFFSET_SHARE * pl.col("num_stamps"))
        .select("series_id", "residue")
    )
