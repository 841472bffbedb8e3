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
        compared: forecasts of the disturbed run.
        missing: of them, those that the undisturbed run does not have.
        different: of them, those with other quantiles.
        different_on_time: of these, the ones made before the next tick closed, and so without catching up.
    """

    compared: int
    missing: int
    different: int
    different_on_time: int


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


def compare(disturbed: Settings, twin: Settings, fleet: Fleet) -> Comparison:
    """Hold the forecasts of a disturbed run against those of its twin."""
    late = disturbed.ingest.allowed_lateness + timedelta(seconds=fleet.interval_s)
    ours, theirs = (
        read(Lake(settings.lake).scan(Forecasts).select(*Forecasts.key, "quantiles", "created_at")) for settings in (disturbed, twin)
    )
    both = ours.join(theirs, on=Forecasts.key, suffix="_twin")
    distance = (pl.col("quantiles") - pl.col("quantiles_twin")).list.eval(pl.element().abs()).list.max()
    size = pl.col("quantiles_twin").list.eval(pl.element().abs()).list.max()
    different = both.filter(distance > REL_TOL * (1 + size))
    on_time = different.filter(pl.col("created_at") < pl.col("origin") + late)
    return Comparison(len(ours), len(ours) - len(both), len(different), len(on_time))
