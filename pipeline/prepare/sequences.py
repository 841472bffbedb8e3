"""Observations become arrays: many series side by side, time first, each starting at its own first tick.

Called by `pipeline.train` (which slices segments out of them), `pipeline.forecast` and `pipeline.evaluate`.
A panel holds each value once; only the batch being trained on is copied out of it.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import CausalityError, DataError
from pipeline.prepare.covariates import PanelCovariates
from pipeline.prepare.grid import MAX_GAP, tick_expr
from pipeline.schemas import EPOCH, MICROSECOND
from pipeline.store.patterns import matches

logger = logging.getLogger(__name__)

MAX_ROWS = 20_000_000  # of a panel, 160 MB for each series: a longer one has a stray stamp


@dataclass(frozen=True)
class Panel:
    """B series on one grid spacing, left-aligned: row t of column b is tick `first_tick_B[b] + t`.

    Attributes:
        series_ids: names, one for each column.
        interval: grid spacing.
        offset_us_B: grid offset of each series, microseconds.
        first_tick_B: integer tick of row 0.
        length_B: ticks from the first to the last row of each series.
        values_TB: float64 in the metric's unit, NaN where not observed.
        covariates: other known values of the series; None where none are read.
    """

    series_ids: tuple[str, ...]
    interval: timedelta
    offset_us_B: NDArray[np.int64]
    first_tick_B: NDArray[np.int64]
    length_B: NDArray[np.int64]
    values_TB: NDArray[np.float64]
    covariates: PanelCovariates | None = None

    @property
    def observed_TB(self) -> NDArray[np.bool_]:
        """Where a value was observed (T, B)."""
        return ~np.isnan(self.values_TB)

    @property
    def interval_us(self) -> int:
        """Grid spacing in microseconds."""
        return self.interval // MICROSECOND

    @property
    def time_TB(self) -> NDArray[np.int64]:
        """Labels of the ticks, seconds since the epoch (T, B)."""
        return self.labels_us(np.arange(len(self.values_TB))[:, None]) // 1_000_000

    def labels_us(self, rows: NDArray[np.int64] | int, columns: NDArray[np.int64] | int | slice = slice(None)) -> NDArray[np.int64]:
        """Return the labels of rows, microseconds since the epoch; rows and columns broadcast, and rows beyond the panel are allowed."""
        labels_us: NDArray[np.int64] = (self.first_tick_B[columns] + rows) * self.interval_us + self.offset_us_B[columns]
        return labels_us

    def label(self, column: int, row: int) -> datetime:
        """Return the instant at which a tick is complete."""
        return EPOCH + int(self.labels_us(row, column)) * MICROSECOND

    @property
    def start(self) -> datetime:
        """The earliest label of any series."""
        return min(self.label(b, 0) for b in range(len(self.series_ids)))

    @property
    def end(self) -> datetime:
        """The latest label of any series."""
        return max(self.label(b, int(length) - 1) for b, length in enumerate(self.length_B))

    def rows_until(self, instant: datetime) -> NDArray[np.int64]:
        """Return for each series how many of its rows have a label at or before `instant` (B,)."""
        instant_us = (instant - EPOCH) // MICROSECOND
        rows_B: NDArray[np.int64] = (instant_us - self.offset_us_B) // self.interval_us - self.first_tick_B + 1
        return np.minimum(np.maximum(rows_B, 0), self.length_B)

    def truncated(self, instant: datetime) -> Self:
        """Return the panel as it was at `instant`: without rows of later labels and series that had not begun."""
        return self.first_rows(self.rows_until(instant))

    def first_rows(self, rows_B: NDArray[np.int64]) -> Self:
        """Return the panel with the first `rows_B` rows of each series, without series that have none left."""
        kept, length_B = self.columns(np.flatnonzero(rows_B > 0)), rows_B[rows_B > 0]
        values_TB = kept.values_TB[: length_B.max(initial=0)].copy()
        values_TB[np.arange(len(values_TB))[:, None] >= length_B] = np.nan
        covariates = None if kept.covariates is None else kept.covariates.first_rows(length_B)
        return replace(kept, length_B=length_B, values_TB=values_TB, covariates=covariates)

    def columns(self, columns_B: NDArray[np.int64] | list[int]) -> Self:
        """Return the panel with only some of its series, in that order."""
        return replace(
            self,
            series_ids=tuple(self.series_ids[b] for b in columns_B),
            offset_us_B=self.offset_us_B[columns_B],
            first_tick_B=self.first_tick_B[columns_B],
            length_B=self.length_B[columns_B],
            values_TB=self.values_TB[:, columns_B],
            covariates=None if self.covariates is None else self.covariates.columns(columns_B),
        )


def to_panel(observations: pl.DataFrame, grids: pl.DataFrame, *, since_tick: dict[str, int] | None = None, restarts: bool = False) -> Panel:
    """Arrange observations as a panel.

    A series with a hole of more than `MAX_GAP` ticks starts after the last such hole, unless `since_tick` says where it starts.

    Args:
        observations: rows of `Observations`, one for each (series_id, ts), any order.
        grids: series_id, sample_interval_us, grid_offset_us for each series in `observations`.
        since_tick: the wanted series and the tick at which each starts, with or without observations; by default all series with
            observations, each from its first.
        restarts: let a long hole move the starts of `since_tick` too; the caller then finds them in `first_tick_B`.

    Raises:
        DataError: when the series do not share one grid spacing, or one asks for more than `MAX_ROWS` ticks.
        CausalityError: when values have read readings after their own time.
    """
    _refuse_hindsight(observations)
    if since_tick is None:
        used = grids.join(observations.select("series_id").unique(), on="series_id", how="semi").with_columns(first=pl.lit(None, pl.Int64))
    else:
        starts = pl.DataFrame({"series_id": list(since_tick), "first": list(since_tick.values())}, schema_overrides={"first": pl.Int64})
        used = grids.join(starts, on="series_id")
    used = used.sort("series_id").with_row_index("column")
    interval_us = _one_interval(used)
    rows = (
        observations.select("series_id", "ts", "value")
        .join(used, on="series_id")
        .with_columns(tick=tick_expr())
        .with_columns(pl.coalesce("first", pl.col("tick").min().over("column")))
    )
    rows = rows.filter(pl.col("tick") >= pl.col("first"))
    rows = (_after_holes(rows) if restarts or since_tick is None else rows).with_columns(row=pl.col("tick") - pl.col("first"))
    spans = rows.group_by("column").agg(start=pl.col("first").first(), length=pl.col("row").max() + 1)
    spans = used.join(spans, on="column", how="left").sort("column").with_columns(pl.col("length").fill_null(0))
    longest = int(spans["length"].to_numpy().max(initial=0))
    if longest > MAX_ROWS:
        raise DataError(
            f"A panel requires {MAX_ROWS} ticks or fewer; got {longest} for {spans.sort('length')['series_id'][-1]}. "
            "Leave the series out, or give it a longer sample interval."
        )
    values_TB = np.full((longest, used.height), np.nan)
    values_TB[rows["row"].to_numpy(), rows["column"].to_numpy()] = rows["value"].to_numpy()
    return Panel(
        series_ids=tuple(used["series_id"]),
        interval=interval_us * MICROSECOND,
        offset_us_B=used["grid_offset_us"].to_numpy().astype(np.int64),
        first_tick_B=spans.select(pl.coalesce("start", "first")).to_series().to_numpy().astype(np.int64),
        length_B=spans["length"].to_numpy().astype(np.int64),
        values_TB=values_TB,
    )


def _refuse_hindsight(observations: pl.DataFrame) -> None:
    """Refuse values whose `knowledge_time` is null or later than the value's own time: they have read the future."""
    if "knowledge_time" not in observations.columns:
        return
    own = [name for name in ("ts", "available_at") if name in observations.columns]
    late = (pl.col("knowledge_time") > pl.max_horizontal(own)).fill_null(value=True) & pl.col("value").is_not_null()
    wrong = observations.filter(late)
    if wrong.is_empty():
        return
    series, instant, knowledge = wrong.select("series_id", "ts", "knowledge_time").row(0)
    raise CausalityError(
        f"A forecaster requires values that were known at their own time; got {wrong.height} with a later knowledge_time, such as "
        f"{series} at {instant}, which has read up to {knowledge}. Leave gaps as gaps: the forecaster reads them as such; filled "
        "history is for reports (docs/causality.md)."
    )


def _after_holes(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop the rows before a series' last hole of more than `MAX_GAP` ticks, and move its `first` behind the hole."""
    missing = rows.group_by("column").agg(missing=pl.col("tick").max() - pl.col("first").first() + 1 - pl.len())
    suspects = rows.join(missing.filter(pl.col("missing") >= MAX_GAP), on="column", how="semi").sort("column", "tick")
    before = pl.coalesce(pl.col("tick").shift(1).over("column"), pl.col("first") - 1)
    restarts = suspects.filter(pl.col("tick") - before > MAX_GAP).group_by("column").last()
    if restarts.is_empty():
        return rows
    for series, instant in restarts.sort("column").select("series_id", "ts").iter_rows():
        logger.warning("left out what is before a hole of more than %d ticks series=%s starts=%s", MAX_GAP, series, instant)
    moved = rows.join(restarts.select("column", restart="tick"), on="column", how="left")
    return moved.with_columns(pl.coalesce("restart", "first").alias("first")).filter(pl.col("tick") >= pl.col("first")).drop("restart")


def _one_interval(grids: pl.DataFrame) -> int:
    intervals = grids["sample_interval_us"].unique().sort()
    if len(intervals) == 1:
        return int(intervals[0])
    if len(intervals) == 0:
        raise DataError(
            "A panel requires at least one series with observations; got none. "
            "Bring readings in with `tidecast ingest` or `tidecast listen`: a tick is observed when it has closed."
        )
    spacings = ", ".join(str(us * MICROSECOND) for us in intervals.to_list()[:5])
    raise DataError(
        f"One model requires series of one sample interval; got {spacings}. "
        "Choose series with --series, or keep one lake for each interval (--lake)."
    )


def match_series(catalog: pl.DataFrame, patterns: Sequence[str] | None, inputs: Collection[str] = ()) -> pl.DataFrame:
    """Keep the catalog's series that match any of the glob patterns; all that have a grid when there are none.

    Args:
        catalog: all series.
        patterns: `*` stands for any text, `?` for one letter.
        inputs: metrics that are covariates of the others, and so no targets.

    Raises:
        DataError: naming a few series there are, when nothing matches.
    """
    known = catalog.filter(pl.col("sample_interval_us").is_not_null())
    known = known.filter(~pl.col("metric").is_in(list(inputs))) if inputs else known
    if patterns:
        known = known.filter(matches("series_id", patterns))
    if known.is_empty():
        there = ", ".join(catalog["series_id"].head(5).to_list()) or "none at all"
        asked = f"that match {' or '.join(map(repr, patterns))}" if patterns else "whose sample interval is known from enough readings"
        asked += f" and that are no covariate ({', '.join(sorted(inputs))})" if inputs else ""
        advice = "Ingest more, or correct the pattern." if patterns else "Ingest more."
        raise DataError(f"tidecast requires series {asked}; got none. There are {there}. {advice}")
    return known


def serving_series(
    catalog: pl.DataFrame, patterns: Sequence[str] | None, sample_interval_s: float, inputs: Collection[str] = ()
) -> pl.DataFrame:
    """Keep the catalog's series that a model of one sample interval serves; arguments as for `match_series`.

    Raises:
        DataError: when there is none.
    """
    fleet = match_series(catalog, patterns, inputs).filter(pl.col("sample_interval_us") == round(sample_interval_s * 1e6))
    if fleet.is_empty():
        raise DataError(
            f"The champion requires series with a sample interval of {sample_interval_s:g} s; got none. Train a model for those there are."
        )
    return fleet
