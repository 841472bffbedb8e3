"""The follower: a loop that forecasts a lake as its ticks close, with the state in memory, and leaves the tables that single runs leave.

It wakes when the next tick closes and when readings were committed. Everything it knows is in the tables and the last snapshot: after an
error, as after a crash, it opens that snapshot and goes on. One process follows a lake; others stand by. Called by `flows.follow`.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pipeline.clock import Clock, ReplayClock
from pipeline.errors import DataError, LeaseLostError, ModelError, StoreError
from pipeline.forecast.leadership import Candidate, Leadership, leader
from pipeline.forecast.rolling import ForecastReport, RollingForecasts
from pipeline.forecast.succession import ChampionWatch, Succession
from pipeline.prepare.closing import Settled, next_close
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.handovers import Handovers
from pipeline.store.lake import Lake
from pipeline.store.snapshot_pointers import SnapshotPointers
from pipeline.tracking.registry import champion, load_version
from pipeline.tracking.saved_model import LoadedModel

logger = logging.getLogger(__name__)

LOOK = timedelta(milliseconds=250)  # how often a follower looks for new readings: one file's name
STAND_BY = timedelta(seconds=1)  # how often a standby asks for the lease
AFTER_AN_ERROR = timedelta(seconds=5)


@dataclass(frozen=True)
class TickReport:
    """What a follower did when it woke.

    Attributes:
        at: the instant up to which ticks were closed.
        observations: rows of observations written.
        forecast: the report on all series.
        snapshot: whether the state was written to disk.
    """

    at: datetime
    observations: int
    forecast: ForecastReport
    snapshot: bool

    @property
    def is_idle(self) -> bool:
        """Whether nothing came of it."""
        return not (self.observations or self.forecast.ticks or self.forecast.scored)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {**asdict(self), "at": self.at.isoformat(), "forecast": self.forecast.to_dict()}


class Follower:
    """Forecasts a lake tick by tick.

    Attributes:
        succession: rebuilds the states of the next champion.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        score: Callable[[Settings, Clock], int],
        *,
        take_in: Callable[[Settings, Clock], Settled] = lambda _, clock: Settled(clock.now()),
        origins: int = 1,
    ) -> None:
        """Follow a lake.

        Args:
            settings: say where the lake is.
            clock: tells which ticks have closed.
            score: scores what has come true (`pipeline.evaluate.maturity.score_matured`).
            take_in: brings the readings up to what was acknowledged, and says how far they have it (`flows.closing.take_in`).
            origins: ticks to forecast for series that have no forecast yet.
        """
        self._settings, self._clock, self._score, self._take_in, self._origins = settings, clock, score, take_in, origins
        self._lake = Lake(settings.lake)
        self._handovers = Handovers(settings.state_dir)
        self._champion = ChampionWatch(settings, clock)
        self.succession = Succession(settings, clock)
        self._candidate = Candidate(settings, clock)
        self._leadership: Leadership | None = None
        self._rolling: RollingForecasts | None = None
        self._waits_for: str | None = None  # what was said of it last
        self._problem: str | None = None
        self._readings_version = -1
        self._next_close: datetime | None = None
        self._saved_at: timedelta | None = None

    def run(self, stop: threading.Event, report: Callable[[TickReport], None], say: Callable[[str], None]) -> None:
        """Follow until `stop` is set; then finish the tick, write a snapshot and return.

        Where the lake has no tables, or there is no model, it waits: what makes them may be started later.

        Args:
            stop: set by a signal.
            report: called with the report of each tick that did something.
            say: called with sentences for a person.

        Raises:
            LeaseLostError: when another process has taken over.
            StoreError: when the lake is already damaged at startup.
        """
        with ExitStack() as held:
            while not stop.is_set() and self._leadership is None:
                self._lead_or_wait(say)
                if self._leadership is not None:
                    held.enter_context(self._leadership.renewed())
                else:
                    stop.wait(STAND_BY.total_seconds())
            held.callback(self.succession.stop)
            while not stop.is_set():
                stop.wait(min(self._turn(report), self._until_close()).total_seconds())
            self.save()

    def lead(self, say: Callable[[str], None] = logger.info) -> None:
        """Take the lease if there are tables and nobody holds it; else say once what it waits for."""
        if not self._lake.exists():
            self._wait_for(f"Waiting for the tables of {self._settings.lake}: a listener makes them, or `tidecast ingest`.", say)
            return
        taken = self._candidate.ask()
        if taken is not None:
            taken.claim(self._settings)
            say(f"Following {self._settings.lake}.")
            self._leadership = taken
        else:
            holder = leader(self._settings)
            self._wait_for(f"Standing by: {holder.name if holder else 'another process'} follows {self._settings.lake}.", say)

    def is_due(self) -> bool:
        """Whether a tick has closed, readings were committed, or a new champion is ready."""
        is_closed = self._next_close is not None and self._clock.now() >= self._next_close
        return is_closed or self._rolling is None or self._lake.has_moved(Readings, self._readings_version) or self._is_successor_ready()

    def tick(self) -> TickReport:
        """Close the ticks that are due, forecast from them, score what has come true, and save where it is time.

        Raises:
            DataError: when no series matches the model.
            LeaseLostError: when another process has taken over.
            ModelError: when there is no model, or it cannot be loaded.
            StoreError: when the lake cannot be read or written.
        """
        if not self._lake.exists():  # else what follows would make a state folder in its place, which then could not be put back
            raise StoreError(
                f"A follower requires the tables of its lake; got {self._settings.lake}, which has none any more. Put it back: it goes on."
            )
        now, readings_version = self._take_in(self._settings, self._clock)  # what closes after that is due at once
        self._check()
        closed = regularise(self._settings, ReplayClock(now), readings_version)
        self._check()
        rolling = self._rolling or self._opened()
        done = rolling.advance(self._clock, origins=self._origins)
        self._rolling = self._after_succession(rolling)
        done = replace(done, scored=self._score(self._settings, self._clock))
        self._readings_version = closed.readings_version
        self._next_close = next_close(Catalog(self._settings.state_dir).series(), self._settings.ingest.allowed_lateness, now)
        is_save_due = self._saved_at is None or self._clock.elapsed() >= self._saved_at + self._settings.forecast.snapshot_interval
        if is_save_due:
            self.save()
        return TickReport(now, closed.observations_written, done, is_save_due)

    def prepare_successor(self) -> None:
        """Begin, or go on with, the rebuild of a champion that does not serve yet; harmless to repeat."""
        wanted = self._wanted()
        if wanted is not None:
            self.succession.prepare(wanted)

    def forget(self) -> None:
        """Write the state to disk and open it from there the next time, as single runs do; a benchmark measures that."""
        self.save()
        self._rolling = None

    def save(self) -> None:
        """Write the state to disk if it has changed."""
        if self._rolling is not None:
            self._rolling.snapshot()
            self._handovers.record(self._rolling.model.version, self._rolling.model.identity, self._clock.now())
            self._saved_at = self._clock.elapsed()

    def _lead_or_wait(self, say: Callable[[str], None]) -> None:
        """Take the lease if possible; a follower that waits, perhaps for weeks, outlives a lake or a lease that is out of reach."""
        try:
            self.lead(say)
        except StoreError as error:
            if self._waits_for is None:
                raise
            logger.warning("waiting: %s", error)

    def _wait_for(self, sentence: str, say: Callable[[str], None]) -> None:
        if sentence != self._waits_for:
            self._waits_for = sentence
            say(sentence)

    def _turn(self, report: Callable[[TickReport], None]) -> timedelta:
        """Run a tick if one is due, and return how long to wait before the next look; after an error discard the state."""
        try:
            self.prepare_successor()
            if not self.is_due():
                return LOOK
            done = self.tick()
        except LeaseLostError:
            self._rolling = None  # whatever it holds is another's now
            raise
        except (DataError, ModelError, StoreError, OSError) as error:  # a full disk, a table that is being repaired, no model yet
            if str(error) != self._problem:
                self._problem = str(error)
                logger.warning("going back to the last snapshot, every %d s until it works: %s", AFTER_AN_ERROR.seconds, error)
            self._rolling, self._saved_at, self._next_close = None, None, None
            return AFTER_AN_ERROR
        self._problem = None
        if not done.is_idle:
            report(done)
        return timedelta(0)

    def _until_close(self) -> timedelta:
        """How long until the next tick closes; a long time where none is open."""
        if self._next_close is None:
            return timedelta(days=1)
        return max(self._next_close - self._clock.now(), timedelta(milliseconds=1))

    def _check(self) -> None:
        if self._leadership is not None:
            self._leadership.check()

    def _opened(self) -> RollingForecasts:
        return RollingForecasts.open(self._settings, self._serving(), self._leadership)

    def _serving(self) -> LoadedModel:
        """Return the model that forecast last, where it has a state; else the champion."""
        last = self._handovers.newest()
        if last is None or last.version == self._champion.version():
            return champion(self._settings)
        if SnapshotPointers(self._settings.state_dir).of(last.model) is None:
            return champion(self._settings)
        try:
            return load_version(self._settings, last.version)
        except ModelError as error:  # it was deleted
            logger.warning("the champion forecasts at once: %s", error)
            return champion(self._settings)

    def _wanted(self) -> str | None:
        """Return the version of the champion where another model still serves; else None."""
        wanted = self._champion.version()
        return None if self._rolling is None or wanted == self._rolling.model.version else wanted

    def _is_successor_ready(self) -> bool:
        wanted = self._wanted()
        return wanted is not None and self.succession.is_ready(wanted)

    def _after_succession(self, old: RollingForecasts) -> RollingForecasts:
        """Return the new champion where it is ready, else the old one; it starts at the first tick that the old one has not forecast."""
        if not self._is_successor_ready():
            return old
        new = self.succession.successor(self._leadership)
        if new is None:
            return old
        new.advance(self._clock, origins=self._origins, issued=old.ticks)
        new.snapshot()
        self._handovers.record(new.model.version, new.model.identity, self._clock.now(), old.frontier)
        logger.info("version=%s took over from version=%s last_origin=%s", new.model.version, old.model.version, old.frontier)
        self.succession.stop()
        return new
