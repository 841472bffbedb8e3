"""The power goes, at hundreds of moments and in several ways, and what comes back is held against the run that nothing disturbed.

    python -m tests.faults.power_loss --disks 300

A run (`power_run.py`) is recorded once. At each moment a disk is made as it may look then (`disks.py`), the doctor repairs it, and the run
goes on for two ticks from where its ledger ends. Then every table must be the one of the recorded run at that tick, row by row.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import polars as pl

from pipeline.clock import ReplayClock
from pipeline.doctor.doctor import examine, repair
from pipeline.errors import StoreError
from pipeline.schemas import Forecasts, Observations, Quarantine, Readings, Scores, TableSchema
from pipeline.settings import ForecastSettings, IngestSettings, ListenSettings, PrepareSettings, Settings
from pipeline.store.lake import Lake, read
from tests.faults.crew import champion_of
from tests.faults.disks import Contents, Disk, Names
from tests.faults.oracle import Account, ForecastAccount
from tests.faults.power_run import INTERVAL, LATENESS, instant_of, live, write_files
from tests.faults.recording import Call, path_of, record, text_of
from tests.faults.report import table
from tests.faults.scenarios import Outcome
from tests.lakes import TestLake, random_weights

COMPARED: dict[type[TableSchema], str] = {  # and the instant at which each row came to be
    Readings: "ingested_at",
    Quarantine: "received_at",
    Observations: "available_at",
    Forecasts: "created_at",
    Scores: "scored_at",
}
VERSIONS = ("input_version",)  # of tables, which a repair adds to
DIGITS = 4  # of quantiles: a state that is rebuilt sums in another order
TICKS_AFTER = 2
SHORT = 1_000  # characters of an argument that a path is looked for in


class NotMendedError(Exception):
    """The doctor finds damage that it has repaired."""


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


@dataclass
class Recovery:
    """What came back after a power failure.

    Attributes:
        failure: that it was.
        findings: of the doctor, each repaired.
        wrong: rows by what is wrong with them: lost, repeated, made up or different.
        examples: of these, a sentence for each table.
    """

    failure: PowerFailure
    findings: tuple[str, ...] = ()
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


def recorded_run(folder: Path, ticks: int) -> PowerRun:
    """Record a run below a folder."""
    made = TestLake.at(folder)
    made.register(random_weights(0, champion_of(int(INTERVAL.total_seconds()))))
    run = PowerRun(_settings(folder / "disk" / "lake", made.settings), folder, ticks)
    run.root.mkdir()
    write_files(folder / "landing", range(ticks))
    arguments = {"settings": run.settings.model_dump_json(), "landing": folder / "landing", "ledger": folder / "ledger", "ticks": ticks}
    options = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    return replace(run, calls=record([sys.executable, "-m", "tests.faults.power_run", *options], folder / "strace.txt", {}))


def _settings(lake: Path, like: Settings) -> Settings:
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


def recover(run: PowerRun, failure: PowerFailure, ticks: int) -> Recovery:
    """Repair a disk, live through so many ticks from the one in which the power went, and compare."""
    found = Recovery(failure)
    settings = _settings(failure.disk / "lake", run.settings)
    through = min(run.ticks, failure.tick + ticks)
    try:
        found.findings = mended(settings, ReplayClock(instant_of(failure.tick)))
        live(settings, run.folder / "landing", range(failure.tick, through), lambda _: None, failure.acknowledged)
    except (StoreError, NotMendedError) as error:
        found.wrong["lost"] += len(failure.promised)
        found.examples.append(str(error))
        return found
    for schema in COMPARED:
        for what, rows in differences(schema, settings, run.settings, through).items():
            found.wrong[what] += len(rows)
            found.examples += [f"{len(rows)} rows of {schema.name} {what}: {rows.row(0)[:4]}"] if len(rows) else []
    return found


def mended(settings: Settings, clock: ReplayClock) -> tuple[str, ...]:
    """Have the doctor repair a lake, where there is one, and return what it found.

    Raises:
        NotMendedError: when it finds anything after that.
    """
    if not any(Path(settings.lake, schema.name).is_dir() for schema in COMPARED):
        return ()
    report = repair(settings, clock)
    left = [*report.findings, *examine(settings, clock).findings]
    if left:
        raise NotMendedError(f"not mended: {left[0]}")
    return tuple(f"{finding.table or Path(finding.place).name}: {finding.kind}" for finding in report.repaired)


def differences(schema: type[TableSchema], settings: Settings, undisturbed: Settings, through: int) -> dict[str, pl.DataFrame]:
    """Return the rows in which a table differs from the one of the undisturbed run, as that was after so many ticks."""
    ours, theirs = _rows(schema, settings), _rows(schema, undisturbed).filter(pl.col(COMPARED[schema]) <= instant_of(through - 1))
    columns = [name for name in schema.columns if name not in VERSIONS]
    both = ours.join(theirs, on=schema.key, how="semi", nulls_equal=True)
    return {
        "repeated": ours.filter(ours.select(schema.key).is_duplicated()),
        "lost": theirs.join(ours, on=schema.key, how="anti", nulls_equal=True),
        "made up": ours.join(theirs, on=schema.key, how="anti", nulls_equal=True),
        "different": both.join(theirs, on=columns, how="anti", nulls_equal=True),
    }


def _rows(schema: type[TableSchema], settings: Settings) -> pl.DataFrame:
    rows = read(Lake(settings.lake).scan(schema)).select(*schema.columns)
    return rows.with_columns(pl.col("quantiles").list.eval(pl.element().round(DIGITS))) if "quantiles" in rows.columns else rows


def lose_power(*, disks: int, ticks: int, seed: int) -> Outcome:
    """Record a run of so many ticks, and lose the power as often as there are to be disks.

    Returns:
        Sums over all disks: what was acknowledged before, and of all tables the rows that are lost or different, repeated and made up.
    """
    recoveries = []
    with tempfile.TemporaryDirectory(prefix="tidecast-power-") as folder:
        run = recorded_run(Path(folder), ticks)
        for failure in failures(run, disks, seed, Path(folder) / "disks"):
            recoveries.append(recover(run, failure, TICKS_AFTER))
            shutil.rmtree(failure.disk)
            sys.stderr.writelines(f"{failure.name}: {line}\n" for line in (*recoveries[-1].findings, *recoveries[-1].examples))
        num_forecasts = len(read(Lake(run.settings.lake).scan(Forecasts)))
    wrong = sum((recovery.wrong for recovery in recoveries), Counter[str]())
    acknowledged = sum(len(recovery.failure.acknowledged) for recovery in recoveries)
    lost = wrong["lost"] + wrong["different"]
    return Outcome(
        f"the power fails, {disks} disks, {sum(bool(recovery.findings) for recovery in recoveries)} of them repaired",
        faults=disks,
        readings=Account(acknowledged, acknowledged - lost, lost, wrong["repeated"], wrong["made up"]),
        forecasts=ForecastAccount(num_forecasts, 0, 0),
    )


def main() -> None:
    """Do it; ends with 1 where anything was lost, repeated or made up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disks", type=int, default=300)
    parser.add_argument("--ticks", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    outcome = lose_power(disks=chosen.disks, ticks=chosen.ticks, seed=chosen.seed)
    sys.stdout.write(table([outcome]) + "\n")
    sys.exit(not outcome.is_whole)


if __name__ == "__main__":
    main()
