"""Closing ticks: what was acknowledged in time is brought to the readings first, so that a tick closes on all of it.

Called by the follower and by every stage that reads observations: a lake that only listeners fill needs no `tidecast ingest`.
"""

import logging
from typing import TYPE_CHECKING

from pipeline.clock import Clock, ReplayClock

if TYPE_CHECKING:
    from pipeline.prepare.closing import Settled
    from pipeline.prepare.regularise import RegulariseReport
    from pipeline.settings import Settings

logger = logging.getLogger(__name__)


def take_in(settings: "Settings", clock: Clock) -> "Settled":
    """Bring the readings up to the inbox, where there is one.

    Returns:
        How far the readings have what was acknowledged. Up to now, in whatever way a drain fails: forecasts go on without what waits in
        the inbox, which then corrects history like any late reading.
    """
    from pipeline.errors import StoreError
    from pipeline.listen.drain import FAULTS, drain
    from pipeline.prepare.closing import Settled

    try:
        done = drain(settings, clock)
    except FAULTS as error:
        is_fault_of_code = not isinstance(error, StoreError)
        logger.warning("closing ticks without what waits in the inbox: %s", error, exc_info=is_fault_of_code)
        return Settled(clock.now())
    return Settled(done.until, done.readings_version)


def close_ticks(settings: "Settings", clock: Clock) -> "RegulariseReport":
    """Take in what has arrived, then write the observations of the ticks that had closed by then.

    Raises:
        StoreError: when there is no lake, or it cannot be read or written.
    """
    from pipeline.prepare.regularise import regularise
    from pipeline.schemas import Observations
    from pipeline.store.lake import Lake

    until, readings_version = take_in(settings, clock)  # makes the tables of a lake whose listener has not drained yet
    Lake(settings.lake).open(Observations)  # else a mistyped --lake would get a state folder
    return regularise(settings, ReplayClock(until), readings_version)
