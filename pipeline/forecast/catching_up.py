"""Catching up: an advance is split where a revision came between two of its ticks, so that each origin uses only what was known then.

A follower that was stopped finds the ticks that it missed and, among them, readings that came late or were corrected meanwhile. A follower
that had been running would have forecast the earlier origins before those came. Therefore new rows are read in the order in which they
became known: up to the last origin before a revision, then the revision, and on. Without a revision, one pass reads everything. Called by
`pipeline.forecast.rolling`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline.forecast.revisions import Changes
from pipeline.prepare.grid import label_expr, tick_expr
from pipeline.schemas import UTC_US, Observations
from pipeline.store.lake import Lake, read
from pipeline.store.observations import ROW, observations_between, read_observations


@dataclass(frozen=True)
class Knowledge:
    """Which observations were known at an instant.

    Attributes:
        instant: the instant; None for now.
        unknown: `ROW` of the stored observations that were not known then; None where all were.
    """

    instant: datetime | None = None
    unknown: pl.DataFrame | None = None

    def observations(self, lake: Lake, series: Collection[str], start: datetime | None = None) -> pl.DataFrame:
        """Return the observations of some series from a label on, as `read_observations` does, each in the revision that was known."""
        return read_observations(lake, series=series, start=start, end=self.instant, without=self.unknown)

    def first_ticks(self, lake: Lake, fleet: pl.DataFrame) -> dict[str, int]:
        """Return the first tick at which each series was observed; series of which nothing was known are left out.

        The catalog may be ahead of the observations that are read: it learns of readings whose ticks are not written yet.

        Args:
            lake: holds the observations.
            fleet: the series, as the catalog has them.
        """
        grids = fleet.drop_nulls(["first_ts", "sample_interval_us"]).with_columns(tick=tick_expr("first_ts"))
        if grids.is_empty():
            return {}
        told = observations_between(lake.scan(Observations), grids.select(label_expr().min()).item(), self.instant)
        told = told.filter(pl.col("n_obs") > 0, pl.col("series_id").is_in(grids["series_id"].to_list()))
        if self.unknown is not None:
            told = told.join(self.unknown.lazy(), on=ROW, how="anti")
        firsts = read(told.group_by("series_id").agg(pl.col("ts").min())).join(grids, on="series_id").sort("series_id")
        return dict(firsts.select("series_id", tick_expr()).iter_rows())


EVERYTHING = Knowledge()


@dataclass(frozen=True)
class Pass:
    """One pass of an advance.

    Attributes:
        changes: what became known since the pass before; None where the log does not tell.
        knowledge: what the origins of this pass are forecast from.
    """

    changes: Changes | None
    knowledge: Knowledge


def passes(changes: Changes | None, fleet: pl.DataFrame, frontier: datetime) -> Iterator[Pass]:
    """Yield the passes in which an advance takes in what is new; one, unless a revision came between two of its origins.

    Args:
        changes: since the state was made; None where they are not known.
        fleet: series of the catalog.
        frontier: newest label that any series was forecast from.
    """
    if changes is None:
        yield Pass(None, EVERYTHING)
        return
    measured, announced = changes.measured, changes.announced
    for instant in _cuts(measured, fleet, frontier):
        was_known = pl.col("available_at") <= instant
        # The gaps before a reading come with it: until then nobody knew that the series goes on.
        unknown = changes.measured.filter(~was_known | (pl.col("n_obs") == 0)).select(ROW)
        yield Pass(Changes(measured.filter(was_known), announced), Knowledge(instant, unknown))
        measured, announced = measured.filter(~was_known), announced.clear()
    yield Pass(Changes(measured, announced), EVERYTHING)


def _cuts(measured: pl.DataFrame, fleet: pl.DataFrame, frontier: datetime) -> list[datetime]:
    """For each revision, return the last earlier instant at which a new tick was forecast: the advance is split there. Sorted."""
    told = measured.filter(pl.col("n_obs") > 0).join(fleet, on="series_id", how="semi")
    revised = told.filter(pl.col("revision") > 1).select("available_at").unique().sort("available_at")
    if revised.is_empty():
        return []
    newest = told.group_by("available_at").agg(pl.col("ts").max()).sort("available_at")
    before = pl.max_horizontal(pl.lit(frontier, UTC_US), pl.col("ts").cum_max().shift(1))
    moved_on = newest.filter(pl.col("ts") > before).select("available_at", cut="available_at")
    last = revised.join_asof(moved_on, on="available_at", strategy="backward", allow_exact_matches=False)
    return last["cut"].drop_nulls().unique().sort().to_list()
