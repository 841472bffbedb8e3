"""The same readings once in order, and up to three times in any order: stored once each, and the regular series are the same.

Half the disorder lies within a tick or two, half spans everything, so that some readings are late by hours; the ticks are closed three
times on the way, and reopened by what comes late.
"""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from pipeline.clock import SystemClock
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.prepare.regularise import regularise
from pipeline.settings import Settings
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from tests.faults.crew import Crew
from tests.faults.fleet import Fleet, Reading
from tests.faults.losses import judged
from tests.faults.member import wait
from tests.faults.outcome import Outcome
from tests.faults.producer import Producer

DEVICES = 20
PARTS = 3  # after each of which ticks are closed
NEAR = 3 * DEVICES  # places by which a reading may be off, where the disorder is small
COMPARED = ("series_id", "ts", "value", "observed", "n_obs")


def deliveries(crew: Crew, *, readings: int) -> Outcome:
    """Deliver readings one to three times each, shuffled, through the broker, and hold the tables against those of one delivery.

    Args:
        crew: of which only the broker and a listener run.
        readings: how many.
    """
    dice, start = random.Random(crew.fleet.seed), datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    interval_s = crew.settings.prepare.sample_interval.total_seconds()
    fleet = Fleet(DEVICES, start.isoformat(), interval_s, crew.fleet.seed)
    in_order = [fleet.reading(number % DEVICES, number // DEVICES) for number in range(readings)]
    sent = _shuffled(dice, [(number, one) for number, one in enumerate(in_order) for _ in range(dice.randint(1, 3))])
    listener = crew.listener().subscribe()
    producer = Producer(crew.broker.port, crew.ledger, "deliveries")
    for part in range(PARTS):
        for one in sent[part::PARTS]:
            producer.send(one)
        producer.flush()
        wait(lambda part=part: crew.num_received() == sum(len(sent[done::PARTS]) for done in range(part + 1)), crew.moves)  # type: ignore[misc]
        drain(crew.settings, SystemClock())
        regularise(crew.settings, SystemClock())
    producer.finish()
    listener.stop()
    same = _series(crew.settings).equals(_series(_once(crew.settings, in_order, crew.folder / "once")))
    outcome = Outcome(f"{readings:,} readings delivered {len(sent):,} times, shuffled", faults=len(sent) - readings)
    outcome = replace(outcome, failure="" if same else "the regular series are not those of one delivery in order")
    return judged(outcome, crew.settings.lake, crew.ledger, fleet)


def _shuffled(dice: random.Random, numbered: list[tuple[int, Reading]]) -> list[Reading]:
    """Return readings in disorder: every second one near its place, the others anywhere."""
    keyed = [
        (dice.uniform(0, len(numbered)) if dice.random() < 0.5 else number + dice.uniform(-NEAR, NEAR), one) for number, one in numbered
    ]
    return [one for _, one in sorted(keyed, key=lambda pair: pair[0])]


def _once(settings: Settings, in_order: list[Reading], folder: Path) -> Settings:
    """Store each reading once, in order, in a lake of its own."""
    alone = settings.model_copy(update={"lake": str(folder / "lake"), "state": None})
    inbox, clock = Inbox(alone.state_dir), SystemClock()
    inbox.put([Message("mqtt", reading.topic, reading.payload(), clock.now()) for reading in in_order])
    inbox.close()
    drain(alone, clock)
    regularise(alone, clock)
    return alone


def _series(settings: Settings) -> pl.DataFrame:
    return read_observations(Lake(settings.lake)).select(COMPARED).sort("series_id", "ts")
