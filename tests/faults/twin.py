"""The undisturbed run: a new lake is given the same messages at the same instants, and followed tick by tick by a clock that is set.

Nothing dies in it and nothing is caught up on, so its forecasts are those that the disturbed run ought to have made.
"""

from bisect import bisect_left
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from flows.closing import take_in
from pipeline.clock import ReplayClock
from pipeline.errors import DataError
from pipeline.forecast.follower import Follower
from pipeline.listen.inbox import Inbox
from pipeline.schemas import EPOCH, Forecasts
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read
from tests.faults.fleet import Fleet

REL_TOL = 1e-5  # products of matrices of other shapes sum in another order
MEETS_WITHIN = timedelta(seconds=10)  # a follower that finds no series yet looks again after 5 s, and may take as long to do so
AT = ("series_id", "origin")
TWIN = "_twin"


@dataclass(frozen=True)
class Comparison:
    """The forecasts of a disturbed run against those of the undisturbed one.

    Attributes:
        compared: forecasts that both have, and whose quantiles are held against each other.
        missing: that the undisturbed run alone has.
        strange: that the disturbed run alone has.
        different: of those that are compared, the ones with other quantiles or another status.
        first: set aside: what the first forecast of a series says, which is made when it is met, from all that is known then. That both
            runs have it is not set aside.
        first_different: how many of these are different.
        before: set aside: forecasts of one run from before the other one's first of all, at the most `MEETS_WITHIN` earlier.
        examples: some that are not the same.
    """

    compared: int
    missing: int
    strange: int
    different: int
    first: int
    first_different: int
    before: int
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

    Raises:
        ValueError: when the inbox is empty.
    """
    twin = settings.model_copy(update={"lake": str(folder / "lake")})
    Lake(twin.lake).create_all()
    with closing(Inbox(settings.state_dir)) as inbox:
        messages = [stored.message for stored in inbox.read(0, max_messages=10**9, max_bytes=2**40)]
    interval = timedelta(seconds=fleet.interval_s)
    if not messages:
        raise ValueError(f"An undisturbed run requires the messages of an inbox; got none in {settings.state_dir}.")
    clock, num_received, has_met = ReplayClock(fleet.reading(0, 0).ts + settings.ingest.allowed_lateness), 0, False
    follower = Follower(twin, clock, lambda *_: 0, take_in=take_in)
    follower.lead()
    with closing(Inbox(twin.state_dir)) as inbox:
        while num_received < len(messages) or clock.now() < messages[-1].received_at + 2 * interval:
            due = bisect_left(messages, clock.now(), key=lambda message: message.received_at)
            inbox.put(messages[num_received:due])
            num_received = due
            has_met = tick_of(follower, may_wait=not has_met)
            clock.advance(interval)
    return twin


def tick_of(follower: Follower, *, may_wait: bool) -> bool:
    """Run a tick; return whether there was anything to forecast, which may be waited for until there is."""
    try:
        follower.tick()
    except DataError:
        if not may_wait:
            raise
        return False
    return True


def compare(disturbed: Settings, twin: Settings) -> Comparison:
    """Hold the forecasts of a disturbed run against those of its twin."""
    columns = (*Forecasts.key, "status", "quantiles")
    everything = [read(Lake(settings.lake).scan(Forecasts).select(columns)) for settings in (disturbed, twin)]
    begin = _begin(*everything)
    ours, theirs = (frame.filter(pl.col("origin") >= begin) for frame in everything)
    met = pl.concat(frame.group_by("series_id").agg(pl.col("origin").min()) for frame in (ours, theirs)).unique()
    both = ours.join(theirs, on=Forecasts.key, suffix=TWIN)
    first, compared = both.join(met, on=AT, how="semi"), both.join(met, on=AT, how="anti")
    missing, strange = (one.join(other, on=Forecasts.key, how="anti") for one, other in ((theirs, ours), (ours, theirs)))
    sorts = {"missing": missing, "strange": strange, "different": _different(compared)}
    examples = pl.concat(
        frame.sort("origin", "series_id").head(5).select(pl.lit(name).alias("is"), *columns[:-1]) for name, frame in sorts.items()
    )
    counts = {name: len(frame) for name, frame in {**sorts, "first": first, "compared": compared}.items()}
    before = sum(map(len, everything)) - len(ours) - len(theirs)
    return Comparison(**counts, first_different=len(_different(first)), before=before, examples=str(examples))


def _begin(ours: pl.DataFrame, theirs: pl.DataFrame) -> datetime:
    """Return the origin from which both runs must have the same forecasts.

    A follower without a state begins at the fleet's newest tick, so the two runs begin apart where one met the fleet a tick later. What
    the other one has before is not held against it, as long as that is less than `MEETS_WITHIN`; series that come to the fleet later
    begin at a tick that follows from the tables, in both.
    """
    firsts = [frame.select(pl.col("origin").min()).item() for frame in (ours, theirs) if len(frame)]
    earlier, later = min(firsts, default=EPOCH), max(firsts, default=EPOCH)
    return later if later - earlier <= MEETS_WITHIN else earlier


def _different(both: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose quantiles or status are not their twin's; a quantile that is null or no number has no twin but itself."""
    quantiles, theirs = pl.col("quantiles"), pl.col("quantiles" + TWIN)
    lengths = both.filter(quantiles.list.len().eq_missing(theirs.list.len()))
    distance, size = (quantiles - theirs).list.eval(pl.element().abs()), theirs.list.eval(pl.element().abs()).list.max()
    is_finite = distance.list.eval(pl.element().is_finite().fill_null(value=False)).list.all()
    is_close = is_finite & (distance.list.max() <= REL_TOL * (1 + size))
    agreeing = lengths.filter(is_close | quantiles.eq_missing(theirs), pl.col("status").eq_missing(pl.col("status" + TWIN)))
    return both.join(agreeing, on=Forecasts.key, how="anti")
