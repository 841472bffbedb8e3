"""A recorded run, and the power failures that could have ended it: at each moment a disk, made by chance, and what was promised by then."""

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

from pipeline.settings import ForecastSettings, IngestSettings, ListenSettings, PrepareSettings, Settings
from tests.faults.crew import champion_of
from tests.faults.disks import Contents, Disk, Names
from tests.faults.power_run import INTERVAL, LATENESS, write_files
from tests.faults.recording import Call, path_of, record, text_of
from tests.lakes import TestLake, random_weights

SHORT = 1_000  # characters of an argument that a path is looked for in


@dataclass(frozen=True)
class PowerRun:
    """A recorded run.

    Attributes:
        settings: of its lake.
        folder: that holds the lake's disk, `disk`, and the files that land, `landing`.
        ticks: that it lived through.
        calls: that it made.
    """

    settings: Settings
    folder: Path
    ticks: int
    calls: Sequence[Call] = ()

    @property
    def root(self) -> Path:
        """The folder that is recorded."""
        return self.folder / "disk"

    @cached_property
    def ledger(self) -> list[tuple[int, str]]:
        """What was promised, a line each, and after how many calls."""
        place, writes = str(self.folder / "ledger"), ((at, call) for at, call in enumerate(self.calls) if call.name == "write")
        return [(at, text_of(call.arguments[1]).decode().strip()) for at, call in writes if path_of(call.arguments[0]) == place]


@dataclass(frozen=True)
class PowerFailure:
    """A disk as it may be after the power went.

    Attributes:
        name: the moment, what was kept, and the call before.
        disk: the folder that stands for the run's root.
        promised: what the run had promised by then, as its ledger says it.
    """

    name: str
    disk: Path
    promised: Sequence[str]

    @property
    def acknowledged(self) -> set[str]:
        """The messages that were acknowledged."""
        return {line.removeprefix("ack ") for line in self.promised if line.startswith("ack ")}

    @property
    def tick(self) -> int:
        """The tick that it came in."""
        return sum(line.startswith("tick ") for line in self.promised)


def recorded_run(folder: Path, ticks: int) -> PowerRun:
    """Record a run below a folder."""
    made = TestLake.at(folder)
    made.register(random_weights(0, champion_of(int(INTERVAL.total_seconds()))))
    run = PowerRun(settings_of(folder / "disk" / "lake", made.settings), folder, ticks)
    run.root.mkdir()
    write_files(folder / "landing", range(ticks))
    arguments = {"settings": run.settings.model_dump_json(), "landing": folder / "landing", "ledger": folder / "ledger", "ticks": ticks}
    options = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    return replace(run, calls=record([sys.executable, "-m", "tests.faults.power_run", *options], folder / "strace.txt", {}))


def settings_of(lake: Path, like: Settings) -> Settings:
    """Return the settings of a run on a lake, with the models of others."""
    return Settings(
        lake=str(lake),
        tracking=like.tracking,
        ingest=IngestSettings(allowed_lateness=LATENESS),
        prepare=PrepareSettings(sample_interval=INTERVAL),
        listen=ListenSettings(settle="PT0S"),
        forecast=ForecastSettings(snapshot_interval="PT0S"),
    )


def failures(run: PowerRun, number: int, seed: int, folder: Path) -> Iterator[PowerFailure]:
    """Yield power failures one after the other, each with its disk.

    Args:
        run: that was recorded.
        number: of disks.
        seed: of the moments and of what is kept.
        folder: that holds the disks.
    """
    dice = random.Random(seed)
    ways = list(product(Names, Contents))
    dice.shuffle(ways)
    disk = Disk(run.root)
    for turn, moment in enumerate(_moments(run, number, dice)):
        while disk.stamp < moment:
            disk.replay(run.calls[disk.stamp])
        names, contents = ways[turn % len(ways)]
        place = folder / f"{turn}-{names}-{contents}"
        place.mkdir(parents=True)
        disk.lay_out(place, names, contents, dice)
        name = f"call {moment}, names {names}, contents {contents}, after {run.calls[moment - 1].name}"
        yield PowerFailure(name, place, [line for at, line in run.ledger if at < moment])


def _moments(run: PowerRun, number: int, dice: random.Random) -> list[int]:
    """Choose moments just after a change, half of them of the tables: SQLite makes most of the changes, and Delta most of the damage."""
    disk, of_databases, of_tables = Disk(run.root), [], []
    for call in run.calls:
        before = disk.changes
        disk.replay(call)
        if disk.changes > before:
            (of_databases if any(".db" in one[:SHORT] for one in call.arguments[:2]) else of_tables).append(disk.stamp)
    return sorted([*dice.sample(of_tables, number - number // 2), *dice.sample(of_databases, number // 2)])
