"""The crew: broker, producer, listeners and followers as real processes on one lake, each of which can be killed and started again.

Whatever happens in its block, all of them have ended when it is left; each is ended by its own process, never by a name.
"""

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
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
from tests.lakes import TestLake, random_weights

ROOT = Path(__file__).parents[2]
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
PATIENCE_S = 120.0  # without any movement, on a machine with much else to do: a follower alone starts in five seconds
RECOVERY_S = 300.0  # to the first commit of a life, with everything it has to catch up on
LONGEST_S = 1_200.0  # for anything at all: a stream that goes on would hide one who does nothing
LOOK_S = 0.05
LOOK_FOR_MOVES_S = 1.0
MOVING = (Readings, Quarantine, Observations, Forecasts)
LEAD_S = 3.0  # from the making of a producer to its first reading


class DidNotRecoverError(AssertionError):
    """A process that was started ended by itself, or nothing moved for `PATIENCE_S`."""


@dataclass(eq=False)
class Member:
    """One process, and how one sees what it has committed.

    Attributes:
        name: of the process and of its log.
        command: that starts it.
        environment: of the command.
        folder: of its output, `<name>.out` and `<name>.err`, of all its lives.
        committed: a number that rises with everything it commits.
        moves: something that changes for as long as anybody of its crew gets on.
        recoveries_s: of each life after a kill that committed something: seconds from the start of the process to that.
        kills: by signal 9.
        num_lives: how often it was started.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    committed: Callable[[], int]
    moves: Callable[[], object]
    recoveries_s: list[float] = field(default_factory=list)
    kills: int = 0
    num_lives: int = 0

    def start(self, **environment: str) -> Self:
        """Start it, with variables that hold for this life alone."""
        self._before, self._is_recovering, self.started_at = self.committed(), True, time.monotonic()
        self._said = len(self.said("err"))
        with (self.folder / f"{self.name}.out").open("ab") as out, (self.folder / f"{self.name}.err").open("ab") as err:
            variables = {**os.environ, **self.environment, **environment}
            self._process = subprocess.Popen(self.command, env=variables, stdout=out, stderr=err, cwd=ROOT)
        self.num_lives += 1
        return self

    def note_recovery(self) -> None:
        """Take down how long this life took to its first commit, when that is there; whoever measures looks often.

        Raises:
            DidNotRecoverError: with its last words, when it takes longer than `RECOVERY_S`.
        """
        if self._is_recovering and self.committed() > self._before:
            self._is_recovering = False
            if self.kills:
                self.recoveries_s.append(time.monotonic() - self.started_at)
        if self._is_recovering and time.monotonic() > self.started_at + RECOVERY_S:
            raise DidNotRecoverError(f"{self.name} has committed nothing in {RECOVERY_S:.0f} s\n{self.said('err')[-3000:]}")

    def has_recovered(self) -> bool:
        """Return whether this life has committed anything.

        Raises:
            DidNotRecoverError: with its last words, when it has ended or takes too long.
        """
        self.note_recovery()
        if self._process.poll() is not None:
            raise DidNotRecoverError(f"{self.name} ended with {self._process.returncode}\n{self.said('err')[-3000:]}")
        return not self._is_recovering

    def recover(self) -> None:
        """Wait until it has committed something."""
        wait(self.has_recovered, self.moves)

    def end(self) -> None:
        """End it as a power failure would, if it has not ended by itself."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it as a power failure would, and count that.

        Raises:
            DidNotRecoverError: when it had ended by itself.
        """
        self.end()
        self._require_end(-signal.SIGKILL)
        self.kills += 1

    def keep_running(self) -> None:
        """Start it again if it has ended, as a service manager does.

        Raises:
            DidNotRecoverError: when it ended by anything but a fault that it said in a sentence, or a kill of ours.
        """
        if not self.is_running():
            self._require_end(1, -signal.SIGKILL)
            self.start()

    def died(self, code: int) -> None:
        """Count a death that it was started to die.

        Raises:
            DidNotRecoverError: when it ended otherwise.
        """
        self._must_end_with(code)
        self.kills += 1

    def stop(self) -> None:
        """Ask it to end, once it has said something and so knows how to.

        Raises:
            DidNotRecoverError: when it does not end with 0.
        """
        self.first_word()
        self._process.send_signal(signal.SIGTERM)
        self._must_end_with(0)

    def first_word(self) -> str:
        """Wait until this life of it says something, and return that."""
        wait(lambda: len(self.said("err")) > self._said, self.moves)
        return self.said("err")[self._said :]

    def subscribe(self, **environment: str) -> Self:
        """Start a listener and wait until the broker keeps messages for it: what is published before is nobody's."""
        self.start(**environment)
        wait(lambda: "subscribed" in self.said("err")[self._said :], self.moves)
        return self

    def is_running(self) -> bool:
        """Return whether it has been started and has not ended."""
        return hasattr(self, "_process") and self._process.poll() is None

    def said(self, stream: str) -> str:
        """Return everything that its lives have written to `out` or `err`."""
        path = self.folder / f"{self.name}.{stream}"
        return path.read_text(errors="replace") if path.exists() else ""

    def _must_end_with(self, code: int) -> None:
        wait(lambda: self._process.poll() is not None, self.moves)  # a last drain may be of a million readings
        self._require_end(code)

    def _require_end(self, *codes: int) -> None:
        if self._process.returncode not in codes:
            wanted = " or ".join(map(str, codes))
            raise DidNotRecoverError(f"{self.name} was to end with {wanted}; got {self._process.returncode}\n{self.said('err')[-3000:]}")


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


def wait(is_so: Callable[[], bool], moves: Callable[[], object], pause_s: float = LOOK_S) -> None:
    """Wait for something that other processes do, for as long as they get on at all.

    Args:
        is_so: whether it has come.
        moves: something that changes while they get on.
        pause_s: between two looks.

    Raises:
        DidNotRecoverError: when nothing has moved for `PATIENCE_S`, or it has not come in `LONGEST_S`.
    """
    begun = moved_at = looked_at = time.monotonic()
    seen = moves()
    while not is_so():
        now = time.monotonic()
        if now > looked_at + LOOK_FOR_MOVES_S:
            looked_at, found = now, moves()
            seen, moved_at = found, (moved_at if found == seen else now)
        if now > min(moved_at + PATIENCE_S, begun + LONGEST_S):
            raise DidNotRecoverError(f"waited in vain; for {now - moved_at:.0f} s nothing has moved from {seen}")
        time.sleep(pause_s)
