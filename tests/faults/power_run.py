"""What is recorded: messages are acknowledged, files land, and a follower takes them in and forecasts, by a clock that is set.

`python -m tests.faults.power_run` runs all of it, and writes what it has promised to its ledger, a line at a time. After a power failure
`live` goes on where the ledger ends, with what nobody had acknowledged sent again, as a broker would.
"""

import argparse
import os
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from flows.closing import take_in
from pipeline.clock import ReplayClock
from pipeline.errors import DataError, StoreError
from pipeline.evaluate.maturity import score_matured
from pipeline.forecast.follower import Follower
from pipeline.ingest.ingest import IngestOptions
from pipeline.listen.drain import drain
from pipeline.listen.group_commit import GroupCommit
from pipeline.listen.landing import land
from pipeline.payloads.message import Message
from pipeline.settings import Settings
from tests.faults.fleet import METRIC, Fleet

INTERVAL = timedelta(hours=1)
FLEET = Fleet(num_devices=2, start=datetime(2026, 3, 2, tzinfo=UTC).isoformat(), interval_s=INTERVAL.total_seconds())
LATENESS = timedelta(minutes=10)
GARBAGE_EVERY, FILE_EVERY = 3, 4  # ticks
TIDY_EVERY = 8  # commits, in place of a hundred: files are merged, and from the 28th on the log is cut
FILES_DEVICES = 1_000  # numbers of the devices whose readings come in files


def instant_of(tick: int) -> datetime:
    """Return when a tick closes."""
    return FLEET.reading(0, tick).ts + LATENESS


def messages_of(tick: int) -> dict[str, Message]:
    """Return what is sent before a tick closes, by its name in the ledger."""
    readings = [FLEET.reading(device, tick) for device in range(FLEET.num_devices)]
    sent = {f"{one.device}-{tick}": Message("mqtt", one.topic, one.payload(), one.ts) for one in readings}
    if tick % GARBAGE_EVERY == 0:
        sent[f"garbage-{tick}"] = Message("mqtt", "fleet/garbage", b'{"tick": %d, ' % tick, FLEET.reading(0, tick).ts)
    return sent


def write_files(folder: Path, ticks: Iterable[int]) -> None:
    """Write the files that land, each with one reading of a device that sends nothing else.

    A reading of an earlier tick would tell of gaps that nobody knew of when they closed, and that look as if somebody had.
    """
    for tick in ticks:
        if tick % FILE_EVERY == 0:
            place = folder / str(tick)
            place.mkdir(parents=True)
            one = FLEET.reading(FILES_DEVICES + tick, tick)
            row = f"{one.ts.isoformat()},{one.device},{METRIC},{one.value},{instant_of(tick).isoformat()}\n"
            (place / "readings.csv").write_text(f"ts,device_id,metric,value,received_at\n{row}")


def live(settings: Settings, landing: Path, ticks: Iterable[int], say: Callable[[str], None], known: Collection[str] = ()) -> None:
    """Take in and forecast tick by tick.

    Args:
        settings: of the lake.
        landing: as `write_files` made it.
        ticks: to live through.
        say: is told of everything that is promised, when it is.
        known: messages that were acknowledged before.
    """
    with patch("pipeline.store.lake.EVERY", TIDY_EVERY), patch("pipeline.store.upkeep.KEPT_VERSIONS", TIDY_EVERY):
        _live(settings, landing, ticks, say, known)


def _live(settings: Settings, landing: Path, ticks: Iterable[int], say: Callable[[str], None], known: Collection[str]) -> None:
    clock = ReplayClock(instant_of(0))
    follower = None
    for tick in ticks:
        clock.instant = instant_of(tick)
        _take(settings, clock, {name: one for name, one in messages_of(tick).items() if name not in known}, say)
        if follower is None:
            drain(settings, clock)  # the listener makes the lake
            follower = Follower(settings, clock, score_matured, take_in=take_in)
            follower.lead()
        if (landing / str(tick)).exists():
            land(settings, clock, landing / str(tick), IngestOptions())
            say(f"landed {tick}")
        with suppress(DataError):  # no series has a grid yet
            follower.tick()
        say(f"tick {tick}")


def _take(settings: Settings, clock: ReplayClock, messages: dict[str, Message], say: Callable[[str], None]) -> None:
    """Store messages by a group commit; each is acknowledged from the thread of the commits."""
    commit = GroupCommit(settings.state_dir, clock, threading.Event())

    def acknowledge(name: str, failure: StoreError | None) -> None:
        assert failure is None, failure
        say(f"ack {name}")

    for name, message in messages.items():
        commit.submit(message, lambda failure, name=name: acknowledge(name, failure))
    commit.close()


def main() -> None:
    """Live through ticks, with a ledger."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Settings.model_validate_json, required=True)
    parser.add_argument("--landing", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--ticks", type=int, required=True)
    chosen = parser.parse_args()
    ledger = os.open(chosen.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    live(chosen.settings, chosen.landing, range(chosen.ticks), lambda line: _write(ledger, line))


def _write(ledger: int, line: str) -> None:
    os.write(ledger, f"{line}\n".encode())


if __name__ == "__main__":
    main()
