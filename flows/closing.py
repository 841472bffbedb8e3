"""Closing ticks: what was acknowledged in time is brought to the readings first, so that a tick closes on all of it.

Called by the flow `forecast`, by `flows.direct` and by the follower.
"""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.clock import Clock, ReplayClock

if TYPE_CHECKING:
    from pipeline.prepare.regularise import RegulariseReport
    from pipeline.settings import Settings

logger = logging.getLogger(__name__)


def take_in(settings: "Settings", clock: Clock) -> datetime:
    """Bring the readings up to the inbox, where there is one.

    Returns:
        The instant up to which everything that was acknowledged is in the readings. Now, where a drain fails: forecasts go on without
        what waits in the inbox, which then corrects history like any late reading.
    """
    from pipeline.errors import StoreError
    from pipeline.listen.drain import drain

    try:
        return drain(settings, clock).until
    except StoreError as error:
        logger.warning("closing ticks without what waits in the inbox: %s", error)
        return clock.now()


def close_ticks(settings: "Settings", clock: Clock) -> "RegulariseReport":
    """Take in what has arrived, then write the observations of the ticks that had closed by then."""
    from pipeline.prepare.regularise import regularise

    return regularise(settings, ReplayClock(take_in(settings, clock)))
