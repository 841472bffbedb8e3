"""A landing folder: files that others drop there become readings, each once, however often it is seen; they stay where they are.

A file is taken when its name is no temporary one and it has stood still for `listen.settle`. It is ingested, then recorded: killed in
between, the next look ingests it again and finds its readings stored. Called by `tidecast listen files` and the flow `ingest-landing`.
"""

import hashlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import CausalityError, DataError, SettingsError, StoreError
from pipeline.ingest.formats import discover
from pipeline.ingest.ingest import IngestOptions, IngestReport, ingest_paths
from pipeline.ingest.plan import plan_file
from pipeline.ingest.timestamps import StampRules
from pipeline.listen.landing_ledger import FileVersion, LandingLedger
from pipeline.listen.source_thread import SourceThread
from pipeline.settings import Settings

logger = logging.getLogger(__name__)

TEMPORARY = (".tmp", ".part")
LEAST_PAUSE_S = 0.1  # between two looks, where files need not settle
COUNTED = ("read", "accepted", "duplicate", "late", "quarantined")  # of the readings


@dataclass(frozen=True, kw_only=True)
class LandingReport:
    """What became of the files of a folder.

    Attributes:
        files: ingested.
        repeated: not read, because their content was taken before.
        read: readings in the files ingested: accepted + duplicate + quarantined.
        accepted: stored.
        duplicate: stored before, or twice in the files.
        late: of the accepted ones, how many came behind the watermark of their series.
        quarantined: could not be used.
        failed: why a file could not be read, by its path; it is tried again when it changes.
    """

    files: int = 0
    repeated: int = 0
    read: int = 0
    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    quarantined: int = 0
    failed: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return asdict(self)


class Landing:
    """A folder, and what has been seen of it."""

    def __init__(self, settings: Settings, clock: Clock, folder: Path, options: IngestOptions) -> None:
        """Open the ledger.

        Args:
            settings: the lake, the state folder and how long files settle.
            clock: says how long a file has stood still.
            folder: with all below it.
            options: what the user says of every file.

        Raises:
            SettingsError: when there is no such folder.
            StoreError: when the ledger cannot be opened.
        """
        if not folder.is_dir():
            raise SettingsError(f"tidecast listen files requires a folder; got {folder}, which is none. Make it, or correct the path.")
        self._settings, self._clock, self._folder, self._options = settings, clock, folder, options
        self._ours = {Path(settings.lake).absolute(), settings.state_dir.absolute()}  # may lie inside: their files did not land
        self._ledger = LandingLedger(settings.state_dir)
        self._first_seen: dict[FileVersion, datetime] = {}
        self._counts: Counter[str] = Counter()
        self._failed: dict[str, str] = {}

    @property
    def num_settling(self) -> int:
        """How many files the last look found that may still be written to."""
        return len(self._first_seen)

    @property
    def has_folder(self) -> bool:
        """Whether the folder is there; one on another machine may go and come."""
        return self._folder.is_dir()

    def look(self) -> None:
        """Take the files that have come and stand still; one that cannot be read stops none of the others.

        Raises:
            StoreError: when the lake or the ledger cannot be written; nothing is lost, look again.
        """
        now = self._clock.now()
        known = self._ledger.known()
        news = {file: path for path in self._paths() if (file := FileVersion.of(path)) is not None and file not in known}
        # what was seen first after now was seen before somebody set the clock back
        self._first_seen = {file: min(self._first_seen.get(file, now), now) for file in news}
        for file, path in news.items():
            if now - self._first_seen[file] >= self._settings.listen.settle:
                self._take(file, path)
                del self._first_seen[file]

    def report(self) -> LandingReport:
        """Return what became of the files since the folder was opened."""
        return LandingReport(**self._counts, failed=dict(self._failed))

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _paths(self) -> list[Path]:
        # `rglob` raises where a folder is removed while it looks
        found = (Path(folder, name) for folder, _, names in os.walk(self._folder) for name in names)
        landed = (path for path in found if not self._ours & {*path.absolute().parents})
        return sorted(path for path in landed if not _is_temporary(path.relative_to(self._folder)))

    def _take(self, file: FileVersion, path: Path) -> None:
        try:
            sha256 = _digest(path)
            report = None if self._is_repeated(sha256, path) else ingest_paths(self._settings, [path], self._options, self._clock)
        except (DataError, CausalityError) as error:
            if FileVersion.of(path) == file:
                self._ledger.record_fault(file, str(error), self._clock.now())
                self._failed[file.path] = str(error)
                logger.warning("unreadable file=%s: %s", file.path, error)
            return
        if FileVersion.of(path) == file:  # else it was written to meanwhile: the next look takes what it is then
            self._ledger.record_taken(file, sha256, self._clock.now())
        self._count(file, report)

    def _is_repeated(self, sha256: str, path: Path) -> bool:
        """Whether the same content was taken before; under another name it is other readings, where only the name tells the device."""
        earlier = self._ledger.taken_as(sha256)
        if not earlier or self._options.device is not None:
            return bool(earlier)
        (found,), _ = discover([path], self._options.format)
        if found.stem in {replace(found, path=other).stem for other in earlier}:
            return True
        stamps = StampRules(self._options.time_zone, self._options.epoch_unit)
        mapping = plan_file(found, self._options.mapping, stamps).mapping
        return mapping.device_id is not None or mapping.series_id is not None

    def _count(self, file: FileVersion, report: IngestReport | None) -> None:
        self._failed.pop(file.path, None)
        self._counts["repeated" if report is None else "files"] += 1
        if report is not None:
            self._counts.update({name: getattr(report, name) for name in COUNTED})
            logger.info("took file=%s read=%d accepted=%d quarantined=%d", file.path, report.read, report.accepted, report.quarantined)


class LandingSource:
    """A landing folder as a source that `run_listener` starts and stops: looks at it again and again, in a thread."""

    def __init__(self, settings: Settings, clock: Clock, folder: Path, options: IngestOptions, over: threading.Event) -> None:
        """Open the folder.

        Args:
            settings: as for `Landing`, with the rest of these.
            clock: says what is now.
            folder: with all below it.
            options: what the user says of every file.
            over: set here when the source cannot go on.

        Raises:
            SettingsError: when there is no such folder.
            StoreError: when the ledger cannot be opened.
        """
        self._landing = Landing(settings, clock, folder, options)
        self._pause_s = max(LEAST_PAUSE_S, settings.listen.settle.total_seconds())
        self._thread = SourceThread("landing", self._run, over)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the file that is being taken, and look no more; raise why it ended, if it did so by itself."""
        with closing(self._landing):
            self._thread.stop()

    def counts(self) -> Mapping[str, int]:
        """Return what became of files and readings, by name."""
        report = self._landing.report()
        return {**{name: getattr(report, name) for name in ("files", "repeated", *COUNTED)}, "failed": len(report.failed)}

    def is_connected(self) -> bool:
        """Return whether there is a folder that files can land in."""
        return self._landing.has_folder

    def _run(self, ending: threading.Event) -> None:
        while not ending.is_set():
            self._look()
            ending.wait(self._pause_s)

    def _look(self) -> None:
        try:
            self._landing.look()
        except StoreError as error:
            logger.error("landing failed retry_s=%.1f: %s", self._pause_s, error)


def land(settings: Settings, clock: Clock, folder: Path, options: IngestOptions) -> LandingReport:
    """Take what has landed in a folder, once; where files have just come, it waits for them to settle.

    Args:
        settings: as for `Landing`, with the sections that `ingest_paths` takes.
        clock: says what is now.
        folder: the folder, searched with all below it.
        options: what the user says of every file.

    Raises:
        SettingsError: when there is no such folder.
        StoreError: when the lake or the ledger cannot be written.
    """
    with closing(Landing(settings, clock, folder, options)) as landing:
        landing.look()
        if landing.num_settling:
            time.sleep(settings.listen.settle.total_seconds())
            landing.look()
        return landing.report()


def _is_temporary(relative: Path) -> bool:
    return relative.suffix.lower() in TEMPORARY or any(part.startswith(".") for part in relative.parts)


def _digest(path: Path) -> str:
    try:
        path.name.encode()  # what reads files keeps their names in tables, which are UTF-8
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UnicodeEncodeError) as error:
        raise DataError(
            f"A landing folder requires files that can be read; got {path.name!r}: {error}. Mend it; it is tried again."
        ) from error
