"""The one place where the present comes from; everything else takes a `Clock` (so that a test can replay a day in a second)."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the present instant, UTC-aware."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""

    def elapsed(self) -> timedelta:
        """Return how long it is since some fixed instant, whatever was corrected since: to compare with another answer of this clock."""


@dataclass(frozen=True)
class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's instant in UTC."""
        return datetime.now(UTC)

    def elapsed(self) -> timedelta:
        """Return how long the machine has been running."""
        return timedelta(seconds=time.monotonic())


@dataclass
class ReplayClock:
    """A clock that moves only when told to, for replays and tests.

    >>> clock = ReplayClock(datetime(2026, 1, 1, tzinfo=UTC))
    >>> clock.advance(timedelta(hours=1))
    >>> clock.now().isoformat()
    '2026-01-01T01:00:00+00:00'
    """

    instant: datetime

    def now(self) -> datetime:
        """Return the instant the clock was last set to."""
        return self.instant

    def elapsed(self) -> timedelta:
        """Return how long it is since 1970: nobody corrects this clock."""
        return self.instant - datetime(1970, 1, 1, tzinfo=UTC)

    def advance(self, by: timedelta) -> None:
        """Move the clock forward by `by`."""
        self.instant += by
