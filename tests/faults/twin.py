"""The undisturbed run: a new lake is given the same messages at the same instants, and followed tick by tick by a clock that is set.

Nothing dies in it and nothing is caught up on, so its forecasts are those that the disturbed run ought to have made.
"""

from bisect import bisect_left
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from flows.closing import take_in
from pipeline.clock import ReplayClock
from pipeline.errors import DataError
from pipeline.forecast.follower import Follower
from pipeline.listen.inbox import Inbox
from pipeline.schemas import Forecasts
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read
from tests.faults.fleet import Fleet

REL_TOL = 1e-5  # products of matrices of other shapes sum in another order


@dataclass(frozen=True)
class Comparison:
    """The forecasts of a disturbed run against those of the undisturbed one.

    Attributes:
        compared: forecasts that both have.
        missing: that the undisturbed run alone has.
        strange: that the disturbed run alone has.
        different: of those that both have, the ones with other quantiles or another status.
        first: set aside: the first forecast of each series, which is made when it is met, from all that is known then.
        examples: some that are not the same.
    """

    compared: int
    missing: int
    strange: int
    different: int
    first: int
    examples: str

    @property
    def is_same(self) -> bool:
        """Whether both runs have the same forecasts."""
        return self.compared > 0 and self.missing == self.strange == self.different == 0


def undisturbed(settings: Settings, fleet: Fleet, folder: Path) -> Settings:
    """Run everything again below a folder, from the messages that the inbox of a lake holds.

    Args:
        settings: of the lake whose inbox is read; their model forecasts.
        fleet: whose ticks are followed.
        folder: of the new lake.

    Returns:
        The settings of the new lake.
    """
    twin = settings.model_copy(update={"lake": str(folder / "lake")})
    Lake(twin.lake).create_all()
    with closing(Inbox(settings.state_dir)) as inbox:
        messages = [stored.message for stored in inbox.read(0, max_messages=10**9, max_bytes=2**40)]
    interval = timedelta(seconds=fleet.interval_s)
    clock, num_received = ReplayClock(fleet.reading(0, 0).ts + settings.ingest.allowed_lateness), 0
    follower = Follower(twin, clock, lambda *_: 0, take_in=take_in)
    follower.lead()
    with closing(Inbox(twin.state_dir)) as inbox:
        while num_received < len(messages) or clock.now() < messages[-1].received_at + 2 * interval:
            due = bisect_left(messages, clock.now(), key=lambda message: message.received_at)
            inbox.put(messages[num_received:due])
            num_received = due
            with suppress(DataError):  # nothing has come yet
                follower.tick()
            clock.advance(interval)
    return twin


def compare(disturbed: Settings, twin: Settings) -> Comparison:
    """Hold the forecasts of a disturbed run against those of its twin, each series from its second forecast in the disturbed run on."""
    columns = (*Forecasts.key, "status", "created_at", "quantiles")
    all_ours, all_theirs = (read(Lake(settings.lake).scan(Forecasts).select(columns)) for settings in (disturbed, twin))
    begins = all_ours.group_by("series_id").agg(begin=pl.col("origin").min())
    ours, theirs = (frame.join(begins, on="series_id").filter(pl.col("origin") > pl.col("begin")) for frame in (all_ours, all_theirs))
    both = ours.join(theirs, on=Forecasts.key, suffix="_twin")
    distance = (pl.col("quantiles") - pl.col("quantiles_twin")).list.eval(pl.element().abs()).list.max()
    size = pl.col("quantiles_twin").list.eval(pl.element().abs()).list.max()
    different = both.filter((distance > REL_TOL * (1 + size)) | pl.col("status").ne_missing(pl.col("status_twin")))
    missing, strange = (one.join(other, on=Forecasts.key, how="anti") for one, other in ((theirs, ours), (ours, theirs)))
    sorts = {"missing": missing, "strange": strange, "different": different}
    examples = pl.concat(
        frame.sort("origin", "series_id").head(5).select(pl.lit(name).alias("is"), *columns[:-1]) for name, frame in sorts.items()
    )
    return Comparison(len(both), len(missing), len(strange), len(different), len(begins), str(examples))
