"""A small live stream for tests of damage: messages in a real inbox, a drain of ten messages a commit, real tables."""

import json
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from pipeline.clock import ReplayClock
from pipeline.listen.inbox import Inbox, Stored
from pipeline.payloads.message import Message
from pipeline.prepare.regularise import regularise
from pipeline.schemas import Observations, Quarantine, Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake, read
from pipeline.store.readings import append_readings, split_duplicates

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
        """Commit what the readings do not have, ten messages at a time, then regularise."""
        self.lake.create_all()
        with closing(Inbox(self.settings.state_dir)) as inbox:
            source = f"inbox/{inbox.name}"
            while stored := inbox.read(self.fence(inbox), max_messages=PER_COMMIT, max_bytes=10**6):
                readings = pl.concat([_reading(one) for one in stored])
                self._register(readings)
                fresh, _ = split_duplicates(self.lake, readings)
                append_readings(self.lake, fresh, source=source, seq=stored[-1].seq)
        regularise(self.settings, self.clock)

    def fence(self, inbox: Inbox) -> int:
        """Return the last message that the readings have."""
        return self.lake.last_seq(Readings, f"ingest/inbox/{inbox.name}") or 0

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

    def _register(self, readings: pl.DataFrame) -> None:
        spans = readings.group_by("series_id", "device_id", "metric").agg(first_ts=pl.col("ts").min(), last_ts=pl.col("ts").max())
        Catalog(self.settings.state_dir).upsert_series(spans, default_aggregation="mean")


def _message(number: int) -> Message:
    payload = {"series": ["north/flow", "south/flow"][number % 2], "minute": number // 2, "value": float(number)}
    return Message("mqtt", "site", json.dumps(payload).encode(), START + number // 2 * MINUTE + timedelta(seconds=1))


def _reading(stored: Stored) -> pl.DataFrame:
    said = json.loads(stored.message.payload)
    device_id, metric = said["series"].split("/")
    row = {"source": "mqtt:site", "source_seq": stored.seq, "device_id": device_id, "metric": metric, "series_id": said["series"]}
    stamps = {
        "ts": START + said["minute"] * MINUTE,
        "received_at": stored.message.received_at,
        "ingested_at": START,
        "ingest_date": START.date(),
    }
    return Readings.conform(pl.DataFrame([{**row, **stamps, "value": said["value"], "unit": None, "quality": 0, "is_late": False}]))
