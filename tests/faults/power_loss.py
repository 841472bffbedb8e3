"""The power goes, at hundreds of moments and in several ways, and what comes back is held against the run that nothing disturbed.

    python -m tests.faults.power_loss --disks 300

A run (`power_run.py`) is recorded once. At each moment a disk is made as it may look then (`disks.py`), the doctor repairs it, and the run
goes on for two ticks from where its ledger ends. Then every table must be the one of the recorded run at that tick, row by row.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from pipeline.clock import ReplayClock
from pipeline.doctor.doctor import examine, repair
from pipeline.errors import StoreError
from pipeline.schemas import Forecasts, Observations, Quarantine, Readings, Scores, TableSchema
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read
from tests.faults.oracle import Account, ForecastAccount
from tests.faults.outcome import Outcome
from tests.faults.power_failures import PowerFailure, PowerRun, failures, recorded_run, settings_of
from tests.faults.power_run import instant_of, live
from tests.faults.report import table

COMPARED: dict[type[TableSchema], str] = {  # and the instant at which each row came to be
    Readings: "ingested_at",
    Quarantine: "received_at",
    Observations: "available_at",
    Forecasts: "created_at",
    Scores: "scored_at",
}
VERSIONS = ("input_version",)  # of tables, which a repair adds to
TOLERANCE = 1e-5  # of values, relative
THEIRS = "_undisturbed"
TICKS_AFTER = 2


class NotMendedError(Exception):
    """The doctor finds damage that it has repaired."""


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


def recover(run: PowerRun, failure: PowerFailure, ticks: int) -> Recovery:
    """Repair a disk, live through so many ticks from the one in which the power went, and compare."""
    found = Recovery(failure)
    settings = settings_of(failure.disk / "lake", run.settings)
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
    both = ours.join(theirs, on=schema.key, suffix=THEIRS, nulls_equal=True)
    compared = [name for name in schema.columns if name not in (*schema.key, *VERSIONS)]
    return {
        "repeated": ours.filter(ours.select(schema.key).is_duplicated()),
        "lost": theirs.join(ours, on=schema.key, how="anti", nulls_equal=True),
        "made up": ours.join(theirs, on=schema.key, how="anti", nulls_equal=True),
        "different": both.filter(~pl.all_horizontal(_agree(name, both.schema[name]) for name in compared)),
    }


def _agree(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether a column says what the undisturbed run's does; a state that was read from its snapshot sums in another order."""
    ours, theirs = pl.col(name), pl.col(name + THEIRS)
    if dtype == pl.Float64:
        is_close = (ours - theirs).abs() <= TOLERANCE * (1 + theirs.abs())
    elif name == "quantiles":
        is_close = (ours - theirs).list.eval(pl.element().abs()).list.max() <= TOLERANCE * (
            1 + theirs.list.eval(pl.element().abs()).list.max()
        )
    else:
        return ours.eq_missing(theirs)
    return is_close.fill_null(ours.is_null() & theirs.is_null())


def _rows(schema: type[TableSchema], settings: Settings) -> pl.DataFrame:
    return read(Lake(settings.lake).scan(schema)).select(*schema.columns)


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
