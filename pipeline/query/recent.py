"""The last ticks of a few series, kept up to date by reading only the files that came since the last time.

Called by `pipeline.query.watch`. A tick of an hourly fleet is a file, so what is shown lies in a hundred of them: reading these anew
costs 50 ms, reading the one that came 3.
"""

from collections.abc import Mapping
from datetime import date, datetime

import polars as pl

from pipeline.schemas import Observations
from pipeline.store.lake import Lake, local_files, read
from pipeline.store.observations import read_observations

COLUMNS = ("series_id", "ts", "value", "revision")

Span = tuple[datetime, datetime]  # first and last label


class RecentTicks:
    """The newest revision of the last ticks of some series.

    Args:
        lake: the lake.

    Attributes:
        rows: series_id, ts, value, revision; sorted by series and ts, perhaps with more ticks than were asked for.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.rows = Observations.empty().select(COLUMNS)
        self._files: frozenset[str] = frozenset()  # all that was there when `rows` was made
        self._starts: dict[str, datetime] = {}  # from which label on `rows` is whole

    def stored_files(self) -> frozenset[str]:
        """Return the data files of the table at this moment."""
        return frozenset(local_files(self.lake.open(Observations).file_uris()))

    def update(self, spans: Mapping[str, Span], files: frozenset[str]) -> None:
        """Bring the rows up to date.

        Files are only ever added, unless a day is written anew, by a correction or a compaction: then rows may have gone, and all is read.

        Args:
            spans: the labels wanted of each series. The last one is a bound of what is stored in `files`; it keeps the days between from
                being read where a series stopped long ago.
            files: as `stored_files` gave it *before* the spans were known, so that no file is taken for read that holds later labels.
        """
        is_whole = all(series in self._starts and self._starts[series] <= start for series, (start, _) in spans.items())
        if not is_whole or not files >= self._files:
            self._read_all(spans)
        elif files != self._files:
            self._read_files(files - self._files)
        self._files = files

    def _read_all(self, spans: Mapping[str, Span]) -> None:
        by_day: dict[date, list[str]] = {}  # those that stopped long ago are read apart, so that the others are not read from there
        for series, (start, _) in spans.items():
            by_day.setdefault(start.date(), []).append(series)
        parts = [self.rows.clear()]
        for alike in by_day.values():
            starts, ends = zip(*(spans[series] for series in alike), strict=True)
            parts.append(read_observations(self.lake, series=alike, start=min(starts), end=max(ends)).select(COLUMNS))
        self.rows = pl.concat(parts)
        self._starts = {series: start for series, (start, _) in spans.items()}

    def _read_files(self, files: frozenset[str]) -> None:
        if not self._starts:
            return
        wanted = pl.col("series_id").is_in(list(self._starts)) & (pl.col("ts") >= min(self._starts.values()))
        scan = pl.scan_parquet(sorted(files), hive_partitioning=False, glob=False, storage_options=self.lake.storage_options)
        rows = pl.concat([self.rows, read(scan.filter(wanted).select(COLUMNS))]).sort("series_id", "ts", "revision")
        self.rows = rows.unique(("series_id", "ts"), keep="last", maintain_order=True)
