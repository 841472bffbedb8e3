"""The readings of a tick become its observation and the observation's revisions: pure functions of frames, no table in sight.

A tick closes `allowed_lateness` after its label. Revision 1 is what was known then, even if nothing was; each later arrival that changes
the value adds a revision, available when it arrived. A revision depends on nothing received after it, so late readings never rewrite what
was known. Called by `pipeline.prepare.regularise`.
"""

from datetime import datetime, timedelta

import polars as pl

from pipeline.prepare.grid import label_expr, tick_expr
from pipeline.schemas import Observations
from pipeline.store.adjacent_rows import same_as_next, same_as_previous

TICK = ("slot", "tick")  # slot: the series' row in the series frame, cheaper to sort and join by than its name
MOMENT = (*TICK, "at")  # a tick as known at one instant


def observe(
    readings: pl.DataFrame, series: pl.DataFrame, ticks: pl.DataFrame, *, allowed_lateness: timedelta, closed_until: datetime
) -> pl.DataFrame:
    """Compute every revision of the given ticks.

    Args:
        readings: series_id, ts, value, received_at, source_seq; all readings of the given ticks and, for a counter, of the ticks
            before them. Other readings, duplicates and any order are harmless.
        series: series_id, sample_interval_us, grid_offset_us, aggregation (mean, last, sum, counter), one row for each series.
        ticks: series_id, tick (Int64), distinct; each gets at least one row, a gap where it holds no reading.
        allowed_lateness: how long after its label a tick closes.
        closed_until: ticks that close later are left out.

    Returns:
        Rows of `Observations` sorted by (series_id, ts, revision).
    """
    numbered = series.sort("series_id").with_row_index("slot")
    closes = (
        ticks.join(numbered, on="series_id")
        .select("slot", "tick", at=label_expr() + allowed_lateness)
        .filter(pl.col("at") <= closed_until)
        .sort(TICK)
    )
    known = _aggregate(_runs(_events(readings, numbered, closes)))
    values = closes.join(known, on=MOMENT, how="full", coalesce=True)  # a tick that closed with nothing in it is a gap
    return _as_observations(values.sort(MOMENT), numbered)


def _events(readings: pl.DataFrame, numbered: pl.DataFrame, closes: pl.DataFrame) -> pl.DataFrame:
    """Return each value of each stamp with the instant from which it counts (`at`) and the one at which another replaces it (`until`).

    A counter's readings also count in the following tick (own=False there): an increment needs the level before it.
    """
    own = (
        readings.filter(pl.col("value").is_finite())  # null, NaN and infinity are no values
        .join(numbered, on="series_id")
        .select("slot", "ts", "value", "received_at", "source_seq", "aggregation", tick=tick_expr(), own=pl.lit(value=True))
    )
    before = own.filter(pl.col("aggregation") == "counter").with_columns(pl.col("tick") + 1, own=pl.lit(value=False))
    stamp = (*TICK, "ts")
    return (
        pl.concat([own, before])
        .join(closes.rename({"at": "close"}), on=TICK)
        .with_columns(at=pl.max_horizontal("received_at", "close"))
        .sort(*stamp, "received_at", "source_seq", "value", nulls_last=False)
        .filter(~same_as_next(*stamp, "at"))  # of one stamp the latest counts
        .filter(~same_as_previous(*stamp, "value"))  # sent again: nothing new
        .with_columns(replaces=same_as_previous(*stamp), until=pl.when(same_as_next(*stamp)).then(pl.col("at").shift(-1)))
        .select(*MOMENT, "ts", "aggregation", "own", "value", "close", "until", "replaces")
    )


def _runs(events: pl.DataFrame) -> pl.DataFrame:
    """Add `epoch` and sort, so that what was known of a tick at any instant is a prefix of one (slot, tick, epoch).

    An arrival that cannot be appended opens a new epoch, which begins with all values that count at that instant: a correction, or, where
    order matters (last, counter), a stamp older than the newest known. Nearly every tick has one epoch with one instant, its close.
    Without epochs, a device that sends a long buffer message by message would cost the square of its length.
    """
    revised = events.filter(pl.col("at") > pl.col("close")).select(TICK).unique()
    settled = events.join(revised, on=TICK, how="anti").with_columns(epoch=pl.lit(0, pl.UInt32))
    unsettled = events.join(revised, on=TICK, how="semi").sort(*MOMENT, "ts")
    is_behind = (pl.col("ts") <= pl.col("ts").cum_max().shift(1)).over(TICK).fill_null(value=False)
    breaks = pl.when(pl.col("aggregation").is_in(["mean", "sum"])).then("replaces").otherwise(is_behind)
    moments = (
        unsettled.with_columns(breaks=breaks)
        .group_by(MOMENT)
        .agg(pl.col("breaks").any())
        .sort(MOMENT)
        .select(*MOMENT, epoch=pl.col("breaks").cast(pl.UInt32).cum_sum().over(TICK))
    )
    starts = moments.group_by(*TICK, "epoch").agg(start=pl.col("at").min())
    carried = (
        unsettled.join(starts, on=TICK)
        .filter(pl.col("at") < pl.col("start"), pl.col("until").is_null() | (pl.col("until") > pl.col("start")))
        .with_columns(at="start")
    )
    rows = [settled, unsettled.join(moments, on=MOMENT), carried]
    columns = (*MOMENT, "ts", "aggregation", "own", "value", "epoch")
    return pl.concat([frame.select(columns) for frame in rows]).sort(*TICK, "epoch", "at", "ts")


def _aggregate(runs: pl.DataFrame) -> pl.DataFrame:
    """Return slot, tick, at, value, n_obs for each instant at which a tick had readings of its own.

    Sums follow the order of the run, so a value has the same bits whatever comes later or stands beside it in the frame.
    """
    level, before, is_counter = pl.col("value"), pl.col("value").shift(1), pl.col("aggregation") == "counter"
    increment = pl.when(level >= before).then(level - before).otherwise(level)  # a drop is a reset to zero
    parts = runs.with_columns(run=(~same_as_previous(*TICK, "epoch")).cum_sum()).with_columns(
        total=pl.when(~is_counter).then(level).when(same_as_previous("run") & pl.col("own")).then(increment).otherwise(0.0),
        n_obs=pl.col("own").cast(pl.Int32),
        has_start=~(is_counter & pl.col("own")),  # a counter's first level has none before it
    )
    is_alone = ~same_as_previous("run") & ~same_as_next("run")
    running = parts.filter(~is_alone).with_columns(pl.col("total", "n_obs").cum_sum().over("run"), pl.col("has_start").first().over("run"))
    prefixes = pl.concat([parts.filter(is_alone), running]).filter(~same_as_next("run", "at"), pl.col("n_obs") > 0)
    kind = pl.col("aggregation")
    value = pl.when(kind == "mean").then(pl.col("total") / pl.col("n_obs")).when(kind == "last").then("value").otherwise("total")
    return prefixes.select(*MOMENT, "n_obs", value=pl.when("has_start").then(value))


def _as_observations(values: pl.DataFrame, numbered: pl.DataFrame) -> pl.DataFrame:
    """Number the moments at which a value changed and give them the columns of `Observations`; `values` is sorted."""
    revisions = values.filter(~same_as_previous(*TICK, "value")).with_row_index("row")
    first_row = pl.when(~same_as_previous(*TICK)).then(pl.col("row")).forward_fill()
    return Observations.conform(
        revisions.join(numbered, on="slot", maintain_order="left")
        .with_columns(
            ts=label_expr(),
            revision=pl.col("row") - first_row + 1,
            observed=pl.col("value").is_not_null(),
            n_obs=pl.col("n_obs").fill_null(0),
            available_at="at",
        )
        .with_columns(event_date=pl.col("ts").dt.date())
    )
