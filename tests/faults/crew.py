"""The crew: broker, producer, listeners and followers as real processes on one lake, each of which can be killed and started again.

Whatever happens in its block, all of them have ended when it is left; each is ended by its own process, never by a name.
"""

import math
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from models.config import ForecasterConfig, NetworkConfig
from pipeline.errors import StoreError
from pipeline.listen.inbox import Inbox
from pipeline.schemas import Forecasts, Observations, Quarantine, Readings
from pipeline.settings import ForecastSettings, IngestSettings, ListenSettings, PrepareSettings, Settings
from pipeline.store.lake import Lake
from tests.brokers import Mosquitto
from tests.faults.fleet import Fleet
from tests.faults.member import Member
from tests.lakes import TestLake, random_weights

CRASHED = 70  # EX_SOFTWARE: a fault that nobody caught; one that a person can mend is a sentence and 1
PROGRAM = f"""import sys, traceback; from flows.cli import main
try:
    main()
except (SystemExit, KeyboardInterrupt):
    raise
except BaseException:
    traceback.print_exc()
    sys.exit({CRASHED})"""
TIDECAST = [sys.executable, "-c", PROGRAM]
MOVING = (Readings, Quarantine, Observations, Forecasts)
LEAD_S = 3.0  # from the making of a producer to its first reading


class Crew:
    """A lake with a champion, a broker, a fleet, and the processes between them.

    Attributes:
        lake: with the registered champion.
        fleet: whose first reading is due a few seconds after its producer was made.
        ledger: what the broker has acknowledged.
        settings: that all processes share.
        members: every process but the broker.
    """

    def __init__(self, folder: Path, *, num_devices: int, interval_s: int, seed: int = 0, **settings: object) -> None:
        """Make the lake.

        Args:
            folder: of everything.
            num_devices: of the fleet.
            interval_s: spacing of its readings, and of the ticks.
            seed: of the fleet's values and of the model.
            **settings: fields of `Settings` that differ from those of all crews.
        """
        self.folder = folder
        self.lake = TestLake.at(folder)
        self.lake.register(random_weights(seed, champion_of(interval_s)))
        Lake(self.lake.settings.lake).create_all()  # so that the follower need not wait for the listener's first commit
        self.broker = Mosquitto(folder / "broker")
        self.fleet = Fleet(num_devices, _soon(interval_s), interval_s, seed)
        self.ledger = folder / "ledger"
        self.members: list[Member] = []
        self._num_received = 0
        common = {
            "lake": self.lake.settings.lake,
            "tracking": self.lake.settings.tracking,
            "ingest": IngestSettings(allowed_lateness="PT1S"),
            "prepare": PrepareSettings(sample_interval=f"PT{interval_s}S"),
            "listen": ListenSettings(drain_interval="PT1S"),
            "forecast": ForecastSettings(snapshot_interval="PT0S"),
        }
        self.settings = Settings(**{**common, **settings})

    def __enter__(self) -> Self:
        """Start the broker."""
        self.broker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything that still runs, the broker too when an interrupt comes meanwhile."""
        try:
            for member in self.members:
                if member.is_running():
                    member.end()
        finally:
            self.broker.stop()

    def producer(self, faults: float = 0.0) -> Member:
        """Return a producer of the fleet's readings, which begin now; one that is killed goes on behind its ledger."""
        self.fleet = replace(self.fleet, start=_soon(self.fleet.interval_s))  # else those who took long to start begin with a flood
        arguments = ["--port", self.broker.port, "--fleet", self.fleet.to_json(), "--ledger", self.ledger]
        command = [sys.executable, "-m", "tests.faults.producer", *arguments, "--faults", faults]
        return self._member("producer", command, lambda: self.ledger.stat().st_size if self.ledger.exists() else 0)

    def listener(self, name: str = "listener") -> Member:
        """Return a listener; two of them take everything twice."""
        command = [*TIDECAST, "listen", "mqtt", "--url", f"mqtt://localhost:{self.broker.port}", "--client-id", name]
        return self._member(name, command, self.num_received)

    def follower(self, name: str = "follower") -> Member:
        """Return a follower; the second one stands by."""
        member = self._member(name, [*TIDECAST, "forecast", "--follow", "--json"], lambda: 0)
        member.committed = lambda: len(re.findall(r'"rows_written": [1-9]', member.said("out")))
        return member

    def num_received(self) -> int:
        """Return the number of the last message in the inbox, or the last one that could be read."""
        with suppress(StoreError), closing(Inbox(self.settings.state_dir)) as inbox:  # on a full disk it may not open
            self._num_received = inbox.last_seq()
        return self._num_received

    def moves(self) -> dict[str, int]:
        """Return how far everybody is: bytes of the ledger, messages in the inbox, commits of each table."""
        facts = {"ledger_bytes": self.ledger.stat().st_size if self.ledger.exists() else 0, "received": self.num_received()}
        return facts | {table.name: newest_commit(Path(self.settings.lake, table.name, "_delta_log")) for table in MOVING}

    def _member(self, name: str, command: list[object], committed: Callable[[], int]) -> Member:
        sections = {"ingest", "prepare", "listen", "forecast"}
        ours = {f"TIDECAST_{one.upper()}": getattr(self.settings, one).model_dump_json(exclude_unset=True) for one in sections}
        environment = {**self.lake.environment(), **ours, "TIDECAST_STATE": str(self.settings.state_dir)}
        self.members.append(Member(name, [str(part) for part in command], environment, self.folder, committed, self.moves))
        return self.members[-1]


def _soon(interval_s: float) -> str:
    """Return an instant of the grid, in a few seconds."""
    return datetime.fromtimestamp(math.ceil((time.time() + LEAD_S) / interval_s) * interval_s, UTC).isoformat()


def champion_of(interval_s: int) -> ForecasterConfig:
    """Return a small model of a grid that faults can be awaited on."""
    network = NetworkConfig(hidden_size=8, num_layers=2)
    return ForecasterConfig(sample_interval_s=interval_s, horizon=6, context_length=12, seasons=(6,), network=network)


def newest_commit(log: Path) -> int:
    """Return the greatest version that a folder of commits holds."""
    return max((int(file.stem) for file in log.glob("*.json") if file.stem.isdecimal()), default=0)
