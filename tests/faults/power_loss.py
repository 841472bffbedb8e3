"""The power goes, at hundreds of moments and in several ways, and what comes back is held against the run that nothing disturbed.

    python -m tests.faults.power_loss --disks 300

A run (`power_run.py`) is recorded once. At each moment a disk is made as it may look then (`disks.py`), the doctor repairs it, and the run
goes on for two ticks from where its ledger ends. Then every table must be the one of the recorded run at that tick, row by row.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
from tests.faults.power_run import INTERVAL, LATENESS, instant_of, live, write_files
from tests.faults.recording import Call, path_of, record, text_of
from tests.lakes import TestLake, random_weights

COMPARED: dict[type[TableSchema], str] = {  # and the instant at which each row came to be
    Readings: "ingested_at",
    Quarantine: "received_at",
    Observations: "available_at",
    Forecasts: "created_at",
    Scores: "scored_at",
}
VERSIONS = ("input_version",)  # of tables, which a repair adds to
TICKS_AFTER = 2


@dataclass(frozen=True)
class PowerRun:
    """A recorded run.

    Attributes:
        settings: of its lake.
        folder: that holds the lake's disk, `disk`, and the files that land, `landing`.
        calls: that it made.
        ticks: that it lived through.
    """

    settings: Settings
    folder: Path
    calls: Sequence[Call]
    ticks: int

    @property
    def root(self) -> Path:
        """The folder that is recorded."""
        return self.folder / "disk"

    def promised(self, num_calls: int) -> list[str]:
        """Return the lines of the ledger that were written in the first so many calls."""
        ledger, writes = str(self.folder / "ledger"), (call for call in self.calls[:num_calls] if call.name == "write")
        found = (call for call in writes if path_of(call.arguments[0]) == ledger)
        return [text_of(call.arguments[1]).decode().strip() for call in found]


@dataclass
class Loss:
    """What one power failure came to.

    Attributes:
        place: the moment and the way.
        wrong: what was lost, repeated or made up, a sentence each.
        findings: of the doctor, by kind.
    """

    place: str
    wrong: list[str] = field(default_factory=list)
    findings: tuple[str, ...] = ()


def recorded_run(folder: Path, ticks: int) -> PowerRun:
    """Record a run below a folder."""
    made = TestLake.at(folder)
    made.register(random_weights(0, champion_of(int(INTERVAL.total_seconds()))))
    run = PowerRun(_settings(folder / "disk" / "lake", made.settings), folder, [], ticks)
    run.root.mkdir()
    write_files(folder / "landing", range(ticks))
    arguments = {"settings": run.settings.model_dump_json(), "landing": folder / "landing", "ledger": folder / "ledger", "ticks": ticks}
    options = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    calls = record([sys.executable, "-m", "tests.faults.power_run", *options], folder / "strace.txt", {})
    return PowerRun(run.settings, folder, calls, ticks)


def _settings(lake: Path, like: Settings) -> Settings:
    return Settings(
        lake=str(lake),
        tracking=like.tracking,
        ingest=IngestSettings(allowed_lateness=LATENESS),
        prepare=PrepareSettings(sample_interval=INTERVAL),
        listen=ListenSettings(settle="PT0S"),
        forecast=ForecastSettings(snapshot_interval="PT0S"),
    )


def disks(run: PowerRun, number: int, seed: int, folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Make disks as they may be after the power went, one after the other.

    Args:
        run: that was recorded.
        number: of disks.
        seed: of the moments and of what is kept.
        folder: that holds them.

    Yields:
        what it is, the folder that stands for the run's root, and how many calls there were before.
    """
    dice = random.Random(seed)
    ways = list(product(Names, Contents))
    dice.shuffle(ways)
    cuts = _moments(run, number, dice)
    disk = Disk(run.root)
    for turn, cut in enumerate(cuts):
        while disk.stamp < cut:
            disk.replay(run.calls[disk.stamp])
        names, contents = ways[turn % len(ways)]
        place = folder / f"{turn}-{cut}-{names}-{contents}"
        place.mkdir(parents=True)
        disk.lay_out(place, names, contents, random.Random(f"{seed} {cut}"))
        yield f"call {cut}, names {names}, contents {contents}, after {run.calls[cut - 1].name}", place, cut


def _moments(run: PowerRun, number: int, dice: random.Random) -> list[int]:
    """Choose moments just after a change, half of them of the tables: SQLite makes most of the changes, and Delta most of the damage."""
    disk, of_databases, of_tables = Disk(run.root), [], []
    for call in run.calls:
        before = disk.changes
        disk.replay(call)
        if disk.changes > before:
            (of_databases if ".db" in str(call.arguments[:2])[:1000] else of_tables).append(disk.stamp)
    return sorted([*dice.sample(of_tables, number - number // 2), *dice.sample(of_databases, number // 2)])


def recover(run: PowerRun, name: str, disk: Path, cut: int) -> Loss:
    """Repair a disk, go on from there, and compare."""
    loss = Loss(name)
    promised = run.promised(cut)
    settings = _settings(disk / "lake", run.settings)
    tick = sum(line.startswith("tick ") for line in promised)
    through = min(run.ticks, tick + TICKS_AFTER)
    try:
        loss.findings = mended(settings, ReplayClock(instant_of(tick)))
        known = {line.removeprefix("ack ") for line in promised if line.startswith("ack ")}
        live(settings, run.folder / "landing", range(tick, through), lambda _: None, known)
    except (StoreError, AssertionError) as error:
        loss.wrong.append(f"did not recover: {error}")
        return loss
    for schema in COMPARED:
        loss.wrong += differences(schema, settings, run.settings, through)
    return loss


def mended(settings: Settings, clock: ReplayClock) -> tuple[str, ...]:
    """Have the doctor repair a lake, where there is one, and return what it found."""
    if not any(Path(settings.lake, schema.name).is_dir() for schema in COMPARED):
        return ()
    report = repair(settings, clock)
    assert report.is_healthy, f"not mended: {report.findings}"
    assert examine(settings, clock).is_healthy
    return tuple(finding.kind for finding in report.repaired)


def differences(schema: type[TableSchema], settings: Settings, undisturbed: Settings, through: int) -> list[str]:
    """Say how a table differs from the one of the undisturbed run, as that was after so many ticks."""
    ours, theirs = _rows(schema, settings), _rows(schema, undisturbed).filter(pl.col(COMPARED[schema]) <= instant_of(through - 1))
    columns = [name for name in schema.columns if name not in VERSIONS]
    found = {
        "repeated": ours.filter(ours.select(schema.key).is_duplicated()),
        "lost": theirs.join(ours, on=schema.key, how="anti", nulls_equal=True),
        "made up": ours.join(theirs, on=schema.key, how="anti", nulls_equal=True),
    }
    both = ours.join(theirs, on=schema.key, how="semi", nulls_equal=True).select(columns)
    found["different"] = both.join(theirs.select(columns), on=columns, how="anti", nulls_equal=True)
    return [f"{len(rows)} rows of {schema.name} {what}: {rows.row(0)[:4]}" for what, rows in found.items() if len(rows)]


def _rows(schema: type[TableSchema], settings: Settings) -> pl.DataFrame:
    rows = read(Lake(settings.lake).scan(schema)).select(*schema.columns)
    return rows.with_columns(pl.col("quantiles").list.eval(pl.element().round(4))) if "quantiles" in rows.columns else rows


def main() -> None:
    """Run it; ends with 1 where anything was lost, repeated or made up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disks", type=int, default=300)
    parser.add_argument("--ticks", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidecast-power-") as folder:
        run = recorded_run(Path(folder), chosen.ticks)
        losses = []
        for name, disk, cut in disks(run, chosen.disks, chosen.seed, Path(folder) / "disks"):
            losses.append(recover(run, name, disk, cut))
            if losses[-1].wrong:
                sys.stdout.write(f"{losses[-1]}\n")
    wrong = [loss for loss in losses if loss.wrong]
    sys.stdout.write(f"{len(losses)} disks, {len(wrong)} wrong\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
