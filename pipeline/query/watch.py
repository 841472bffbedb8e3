"""What there is to see of some series right now: newest observations, newest forecast, and how good the last day's were.

Called by the verb `watch` every few seconds, so a look reads only the files that were not there at the last one, of which the tables'
logs tell. Imports neither torch, MLflow nor Prefect.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from pipeline.errors import DataError
from pipeline.query.frames import whole_forecasts
from pipeline.query.locate import ForecastFiles, Selection, is_pattern, named, newest
from pipeline.query.recent import RecentTicks, Span
from pipeline.query.scores import MEASURES, newest_target
from pipeline.schemas import MICROSECOND, Observations, Scores
from pipeline.store.catalog import Catalog
from pipeline.store.catalog_file import FILE_NAME
from pipeline.store.lake import Lake, read

DAY = timedelta(days=1)
HISTORY = 96  # ticks that are read where there is no forecast
LEVELS = {"lower": "q0.1", "median": "q0.5", "upper": "q0.9"}  # of a fan
SCORE = (*Scores.key, "ts", "error", "pinball", "in_80")


@dataclass(frozen=True)
class Fan:
    """The newest forecast of a series.

    Attributes:
        origin: label of the last tick it used.
        created_at: when it was made.
        model_version: which model made it.
        status: what it rests on, as the forecasts table says it.
        steps: ts, lower, median, upper (quantiles 0.1, 0.5, 0.9 in the metric's unit; null where the model has no such level).
    """

    origin: datetime
    created_at: datetime
    model_version: str
    status: str
    steps: pl.DataFrame


@dataclass(frozen=True)
class DayScore:
    """How good the forecasts of the last day's targets were, in the metric's unit; `num_models` of them have contributed.

    `coverage` is the share of the actuals within the 80 % interval, `bias` the mean of actual − median.
    """

    scored: int
    mae: float | None
    bias: float | None
    coverage: float | None
    num_models: int


@dataclass(frozen=True)
class SeriesView:
    """What there is to see of one series.

    Attributes:
        series_id: device_id/metric.
        unit: unit of its values; None if unknown.
        sample_interval: spacing of its grid; None before the first regularisation.
        last_reading: event time of its newest accepted reading.
        history: ts, value of its last ticks, oldest first; a gap has no value.
        fan: its newest forecast; None before the first.
        day: the scores of the last day; None where no forecast came true in it.
    """

    series_id: str
    unit: str | None
    sample_interval: timedelta | None
    last_reading: datetime | None
    history: pl.DataFrame
    fan: Fan | None
    day: DayScore | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        fan = self.fan and {**vars(self.fan), "steps": self.fan.steps.to_dicts()}
        return {**vars(self), "history": self.history.to_dicts(), "fan": fan, "day": self.day and vars(self.day)}


@dataclass(frozen=True)
class Look:
    """What one look at the lake showed: the views, of how many series that match, and the newest target that has been scored."""

    views: tuple[SeriesView, ...]
    num_series: int
    scored_until: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"scored_until": self.scored_until, "series": [view.to_dict() for view in self.views]}


class Watch:
    """Looks at some series again and again, and remembers what it has read.

    Args:
        lake: the lake.
        catalog: the registry of its series.
        names: series ids and patterns.
    """

    def __init__(self, lake: Lake, catalog: Catalog, names: Sequence[str]) -> None:
        self.lake, self.catalog, self.names = lake, catalog, tuple(names)
        self._forget(())

    def look(self, limit: int) -> Look:
        """Look at the first `limit` series that match.

        Raises:
            DataError: where a name is no series of the lake or a pattern matches none.
            StoreError: where the lake cannot be read.
        """
        files = self._recent.stored_files()  # before the registry, which knows of every reading in them
        matching = self._matching()
        shown = matching.head(limit)
        if self._series != tuple(shown["series_id"]):
            self._forget(tuple(shown["series_id"]))
        self._read_forecasts()
        self._read_scores()
        self._recent.update(dict(self._spans(shown)), files)
        return Look(tuple(self._views(shown)), matching.height, self._scored_until)

    def _forget(self, series: tuple[str, ...]) -> None:
        """Begin anew with other series."""
        self._series = series
        self._fans: dict[str, Fan] = {}
        self._seen: set[str] = set()  # files of forecasts and of scores
        self._scores = Scores.empty().select(SCORE)
        self._scored_until: datetime | None = None
        self._recent = RecentTicks(self.lake)

    def _matching(self) -> pl.DataFrame:
        """Return the registered series that are asked for."""
        if not (self.catalog.state_dir / FILE_NAME).exists():  # opening it would make an empty one
            raise DataError(
                f"Watching requires the registry of the lake's series; got {self.catalog.state_dir}, which has none. "
                "Run `tidecast ingest` or `tidecast listen`, or point TIDECAST_STATE at the state folder of this lake."
            )
        registered = self.catalog.series()
        ids = registered["series_id"].to_list()
        for name in self.names:
            is_there = registered.select(named([name]).any()).item() if is_pattern(name) else name in ids
            if not is_there:
                raise DataError(_unknown(name, ids))
        return registered.filter(named(self.names))

    def _read_forecasts(self) -> None:
        """Take in the newest forecasts of files that were not there before."""
        wanted = Selection(series=self._series)
        files = ForecastFiles.of(self.lake, wanted)
        files = replace(files, table=files.table.filter(~pl.col("file").is_in(self._seen)))
        keys = newest(files, wanted)
        older = [key["series_id"] for key in keys.iter_rows(named=True) if not self._is_newer(key)]
        rows = files.read(keys.filter(~pl.col("series_id").is_in(older)))
        for (series,), steps in whole_forecasts(rows).group_by("series_id", maintain_order=True):
            self._fans[str(series)] = _fan(steps)
        self._seen |= set(files.table["file"])

    def _is_newer(self, key: dict[str, datetime]) -> bool:
        known = self._fans.get(str(key["series_id"]))
        return known is None or (known.origin, known.created_at) < (key["origin"], key["created_at"])

    def _read_scores(self) -> None:
        """Take in the scores of files that were not there before, and let go of those before the last day."""
        handle = self.lake.open(Scores)
        self._scored_until = newest_target(handle)
        if self._scored_until is None:
            return
        files, in_day = pl.DataFrame(handle.get_add_actions(flatten=True)), pl.col("ts") > self._scored_until - DAY
        named_files = files.select(file=pl.format("{}/{}", pl.lit(self.lake.table_uri(Scores)), "path"), ts="max.ts")
        fresh = named_files.filter(~pl.col("file").is_in(self._seen), in_day)["file"].to_list()
        if fresh:
            scan = pl.scan_parquet(fresh, hive_partitioning=False, glob=False, storage_options=self.lake.storage_options)
            came = read(scan.filter(pl.col("series_id").is_in(list(self._series)), in_day).select(SCORE))
            self._scores = pl.concat([self._scores, came]).unique(Scores.key)  # a compaction brings what is there already
            self._seen |= set(fresh)
        self._scores = self._scores.filter(in_day)

    def _spans(self, shown: pl.DataFrame) -> Iterator[tuple[str, Span]]:
        """Yield the labels to read of each series whose grid is known."""
        for row in shown.filter(pl.col("sample_interval_us").is_not_null(), pl.col("last_ts").is_not_null()).iter_rows(named=True):
            interval, fan = row["sample_interval_us"] * MICROSECOND, self._fans.get(row["series_id"])
            last = row["last_ts"] if fan is None else max(row["last_ts"], fan.origin)
            yield row["series_id"], (last - history_length(fan) * interval, last + interval)

    def _views(self, shown: pl.DataFrame) -> Iterator[SeriesView]:
        histories = self._recent.rows.select("series_id", "ts", "value").partition_by("series_id", as_dict=True, include_key=False)
        measures = MEASURES | {"num_models": pl.col("model_version").n_unique()}
        days = {row["series_id"]: row for row in self._scores.group_by("series_id").agg(**measures).iter_rows(named=True)}
        nothing = Observations.empty().select("ts", "value")
        for row in shown.iter_rows(named=True):
            series, interval_us = row["series_id"], row["sample_interval_us"]
            fan, day = self._fans.get(series), days.get(series)
            yield SeriesView(
                series_id=series,
                unit=row["unit"],
                sample_interval=None if interval_us is None else interval_us * MICROSECOND,
                last_reading=row["last_ts"],
                history=histories.get((series,), nothing).tail(history_length(fan) + 1),
                fan=fan,
                day=None if day is None else DayScore(*(day[name] for name in ("scored", "mae", "bias", "coverage", "num_models"))),
            )


def history_length(fan: Fan | None) -> int:
    """Return how many ticks to show beside a forecast: enough to see a pattern, so few that the fan is a fifth of the picture or more."""
    horizon = HISTORY // 4 if fan is None else fan.steps.height
    return max(24, min(HISTORY, 4 * horizon), 2 * horizon)


def _fan(steps: pl.DataFrame) -> Fan:
    first = steps.row(0, named=True)
    absent = pl.lit(None, pl.Float32)
    quantiles = {name: pl.col(level) if level in steps.columns else absent for name, level in LEVELS.items()}
    return Fan(first["origin"], first["created_at"], first["model_version"], first["status"], steps.select("ts", **quantiles))


def _unknown(name: str, ids: list[str]) -> str:
    """Return the sentence about a name that no series has, with the most similar ones."""
    if is_pattern(name):
        return f"Watching requires a pattern that a series matches; got {name!r}, which none of {len(ids):,} does. Quote it, and check it."
    near = difflib.get_close_matches(name, ids, n=3, cutoff=0.5)
    advice = f"Did you mean {' or '.join(near)}?" if near else "`tidecast query` lists series."
    return f"Watching requires a series of the lake; got {name!r}, which is none of {len(ids):,}. {advice}"
