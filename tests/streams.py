"""A small live stream for tests of damage: messages in a real inbox, drained ten to a commit, real tables."""

import json
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import polars as pl

from pipeline.clock import ReplayClock
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Observations, Quarantine, Readings
from pipeline.settings import Settings
from pipeline.store.lake import Lake, read

START = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PER_COMMIT = 10
SAME = ["series_id", "ts", "value", "received_at", "source_seq"]  # of a reading, whenever it was committed


@dataclass(frozen=True)
class Stream:
    """A lake below a folder that is fed from an inbox.

    Attributes:
        folder: holds the lake.
    """

    folder: Path

    @property
    def settings(self) -> Settings:
        """The settings that lead to the lake."""
        return Settings(lake=str(self.folder / "lake"))

    @property
    def lake(self) -> Lake:
        """The lake."""
        return Lake(self.settings.lake)

    @property
    def clock(self) -> ReplayClock:
        """A clock that stands a day after the start."""
        return ReplayClock(START + timedelta(days=1))

    def send(self, first: int, last: int) -> None:
        """Put messages into the inbox: a reading of two series, each minute."""
        with closing(Inbox(self.settings.state_dir)) as inbox:
            inbox.put([_message(number) for number in range(first, last + 1)])

    def drain(self) -> None:
        """Bring readings and quarantine up to the inbox, ten messages a commit, then regularise."""
        with patch("pipeline.listen.drain.RANGE_MESSAGES", PER_COMMIT):
            drain(self.settings, self.clock)
        regularise(self.settings, self.clock)

    def readings(self) -> pl.DataFrame:
        """Return what the readings say, in one order."""
        return read(self.lake.scan(Readings)).select(SAME).sort(SAME)

    def observations(self) -> pl.DataFrame:
        """Return all revisions of all observations, in the order of their key."""
        return read(self.lake.scan(Observations)).select(*Observations.columns).sort(Observations.key)

    def log(self, schema: type[Readings | Observations | Quarantine], version: int | None = None) -> Path:
        """Return a commit file of a table; the last one unless a version is named."""
        newest = self.lake.version(schema) if version is None else version
        return Path(self.lake.table_uri(schema), "_delta_log", f"{newest:020}.json")

    def data_files(self, schema: type[Readings | Observations]) -> list[Path]:
        """Return the data files of a table's newest version, the newest first."""
        files = [Path(uri) for uri in self.lake.open(schema).file_uris()]
        return sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True)


def _message(number: int) -> Message:
    at = START + number // 2 * MINUTE
    payload = {"ts": at.isoformat(), "device_id": ["north", "south"][number % 2], "metric": "flow", "value": float(number)}
    return Message("mqtt", "site", json.dumps(payload).encode(), at + timedelta(seconds=1))
