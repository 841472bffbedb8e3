"""What the tests of the doctor share: a healthy lake to copy and damage, and what a repair must have come to."""

import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.doctor.doctor import examine, repair
from pipeline.doctor.findings import DoctorReport
from pipeline.doctor.hashes import FILE_NAME as HASHES
from pipeline.doctor.hashes import record_hashes
from pipeline.listen.inbox import FILE_NAME as INBOX
from pipeline.listen.inbox import Inbox
from pipeline.listen.landing_ledger import FILE_NAME as LANDING
from pipeline.listen.landing_ledger import LandingLedger
from pipeline.schemas import Observations, Readings
from pipeline.store.catalog import Catalog
from pipeline.store.catalog_file import FILE_NAME as CATALOG
from pipeline.store.lease import FILE_NAME as LEASES
from pipeline.store.lease import Leases
from tests.streams import Stream

NUM_MESSAGES = 60
TABLES_IN_DANGER = [Readings, Observations]
# every SQLite file of a state folder, and what opens it, or makes it where there is none
OPENERS: dict[str, Callable[[Stream], object]] = {
    CATALOG: lambda stream: Catalog(stream.settings.state_dir).series(),
    INBOX: lambda stream: Inbox(stream.settings.state_dir).close(),
    LEASES: lambda stream: Leases(stream.settings.state_dir).take("forecast", "me"),
    LANDING: lambda stream: LandingLedger(stream.settings.state_dir).close(),
    HASHES: lambda stream: record_hashes(stream.lake, stream.settings.state_dir),
}


def healthy(folder: Path) -> Stream:
    """Make a healthy lake of six commits, the observations in two; its hashes are recorded."""
    made = Stream(folder)
    made.send(1, NUM_MESSAGES // 2)
    made.drain()
    made.send(NUM_MESSAGES // 2 + 1, NUM_MESSAGES)
    made.drain()
    assert examine(made.settings, made.clock).is_healthy
    return made


def with_every_file(folder: Path) -> Stream:
    """Make a healthy lake of one commit, with every file of a state folder."""
    made = Stream(folder)
    made.send(1, 20)
    made.drain()
    for opened in OPENERS.values():
        opened(made)
    return made


def copied(stream: Stream, folder: Path) -> Stream:
    """Return a copy of a lake, to be damaged."""
    shutil.copytree(stream.folder, folder, copy_function=shutil.copyfile)  # the times of files do not come with it
    return Stream(folder)


def mended(stream: Stream, *, deep: bool = False) -> DoctorReport:
    """Repair, and expect that a second look finds nothing."""
    report = repair(stream.settings, stream.clock, deep=deep)
    assert report.is_healthy
    assert report.repaired
    assert examine(stream.settings, stream.clock, deep=deep).is_healthy
    return report


def is_again(stream: Stream, undisturbed: Stream) -> bool:
    """Drain and compare both tables with those of the undisturbed run."""
    stream.drain()
    return stream.readings().equals(undisturbed.readings()) and stream.observations().equals(undisturbed.observations())


def kinds(report: DoctorReport) -> set[str]:
    """Return what sorts of damage were found."""
    return {finding.kind for finding in report.findings}
