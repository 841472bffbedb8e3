"""Find, in a lake of any size, the few forecast rows that a query is about; called by `pipeline.query.frames` alone.

The transaction log says how new each data file can be, so files are opened newest first and only until every series is found. Of a
file the small key columns are read first, then of the wide `quantiles` column only the span of rows that won: Parquet filters decode
all of that column, 60 ms for a day of 2,000 hourly series where the span takes 3 to 30.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from pipeline.errors import StoreError
from pipeline.schemas import UTC_US, Forecasts
from pipeline.store.lake import Lake, read
from pipeline.store.patterns import matches

KEYS = ("series_id", "origin", "model_version", "created_at")
PAYLOAD = ("horizon", "sample_interval_us", "quantile_levels", "quantiles", "status")
STATISTICS = ("num_records", "min.origin", "max.origin", "min.created_at")
NO_KEYS = Forecasts.empty().select(pl.lit("").alias("file"), pl.lit(0, pl.Int64).alias("row"), *KEYS)


@dataclass(frozen=True)
class Selection:
    """Which stored rows a query is about; None in a field leaves it open."""

    series: tuple[str, ...] | None = None  # ids and patterns
    device: str | None = None
    metric: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None
    model_version: str | None = None

    @property
    def num_exact(self) -> int | None:
        """How many series there can be at most; None where a pattern leaves that open."""
        if self.series is None or any(_is_pattern(name) for name in self.series):
            return None
        return len(set(self.series))

    def rows(self) -> list[pl.Expr]:
        """Return the conditions on the stored rows."""
        conditions = []
        if self.series is not None:
            exact = [name for name in self.series if not _is_pattern(name)]
            patterns = [_matches(name) for name in self.series if _is_pattern(name)]
            conditions.append(pl.any_horizontal(pl.col("series_id").is_in(exact), *patterns))
        if self.device is not None:
            conditions.append(_matches(f"{self.device}/*"))
        if self.metric is not None:
            conditions.append(_matches(f"*/{self.metric}"))
        if self.start is not None:
            conditions.append(pl.col("origin") >= self.start)
        if self.end is not None:
            conditions.append(pl.col("origin") <= self.end)
        if self.as_of is not None:
            conditions.append(pl.col("created_at") <= self.as_of)
        if self.model_version is not None:
            stored = pl.col("model_version")  # the registry's version and the start of the weights' hash
            conditions.append((stored == self.model_version) | stored.str.starts_with(f"{self.model_version}-"))
        return conditions

    def files(self) -> list[pl.Expr]:
        """Return the conditions on the log's file list: files in which a row may match."""
        conditions = []
        if self.start is not None:
            conditions.append(pl.col("newest") >= self.start)
        if self.end is not None:
            conditions.append(pl.col("min.origin") <= self.end)
        if self.as_of is not None:
            conditions.append(pl.col("min.created_at") <= self.as_of)
        return conditions


@dataclass(frozen=True)
class ForecastFiles:
    """The data files that may hold wanted rows, newest first, as the transaction log describes them."""

    table: pl.DataFrame  # file (URI), newest (no origin inside is later), num_records
    storage_options: dict[str, str] | None

    @classmethod
    def of(cls, lake: Lake, wanted: Selection) -> "ForecastFiles":
        """List the files from the log alone; none is opened.

        Raises:
            StoreError: for a table without file statistics, or that cannot be opened.
        """
        actions = pl.DataFrame(lake.open(Forecasts).get_add_actions(flatten=True))
        missing = [name for name in STATISTICS if name not in actions.columns or actions[name].null_count()]
        if actions.height and missing:
            raise StoreError(
                f"A query requires file statistics in {lake.table_uri(Forecasts)}; got none for {', '.join(missing)}. "
                "Rewrite its files: only tidecast may write this table."
            )
        if not actions.height:
            return cls(pl.DataFrame(schema={"file": pl.String, "newest": UTC_US, "num_records": pl.Int64}), None)
        table = actions.select(
            pl.format("{}/{}", pl.lit(lake.table_uri(Forecasts)), "path").alias("file"),
            (pl.col("max.origin") + timedelta(milliseconds=1)).alias("newest"),  # Delta cuts statistics down to the millisecond
            *STATISTICS,
        )
        table = table.filter(*wanted.files()).sort("newest", descending=True)
        return cls(table.select("file", "newest", "num_records"), lake.storage_options)

    def keys(self, wanted: Selection, first: int = 0, last: int | None = None) -> pl.LazyFrame:
        """Return `file, row` and the keys of the wanted rows in the files first..last; `row` counts within its file."""
        files = self.table[first:last]
        if files.is_empty():
            return NO_KEYS.lazy()
        starts = files.lazy().select("file", before=pl.col("num_records").cum_sum() - pl.col("num_records"))
        hits = self._open(files["file"].to_list()).filter(*wanted.rows()).select("file", "row", *KEYS)
        within = (pl.col("row").cast(pl.Int64) - pl.col("before")).alias("row")
        return hits.join(starts, on="file", how="left").with_columns(within).select(NO_KEYS.columns)

    def read(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Read the whole rows of `keys`, opening each file for the span of its rows only."""
        spans = [Forecasts.empty().select(*KEYS, *PAYLOAD).lazy()]
        for (file,), hits in keys.group_by("file", maintain_order=True):
            first, last = hits.select(first=pl.col("row").min(), last=pl.col("row").max()).row(0)
            span = self._open([str(file)]).slice(first, last - first + 1)
            spans.append(span.filter(pl.col("row").is_in(hits["row"].implode())).select(*KEYS, *PAYLOAD))
        return read(pl.concat(spans))

    def _open(self, files: list[str]) -> pl.LazyFrame:
        return pl.scan_parquet(
            files,
            row_index_name="row",
            include_file_paths="file",
            hive_partitioning=False,
            glob=False,
            storage_options=self.storage_options,
        )


def every(files: ForecastFiles, wanted: Selection) -> pl.DataFrame:
    """Find all wanted rows: `file, row` and the keys."""
    return read(files.keys(wanted))


def newest(files: ForecastFiles, wanted: Selection) -> pl.DataFrame:
    """Find the newest forecast of each wanted series: `file, row` and the keys.

    Files are read in groups of 1, 2, 4, … and the search ends when all series are found and no unread file can hold a newer origin.
    """
    bounds, num_files = files.table["newest"], files.table.height
    found, first = NO_KEYS, 0
    size = 1 if wanted.num_exact is not None else num_files  # a pattern is never known to be complete
    while first < num_files:
        last = min(first + size, num_files)
        found = read(_last_of_each(pl.concat([found.lazy(), files.keys(wanted, first, last)])))
        if 0 < found.height == wanted.num_exact and last < num_files and bounds[last] <= found["origin"].min():
            break
        first, size = last, size * 2
    return found


def _last_of_each(keys: pl.LazyFrame) -> pl.LazyFrame:
    """Keep one key for each series: the newest origin and, of several models there, the one written last."""
    order = ("origin", "created_at", "model_version")
    return keys.group_by("series_id").agg(pl.all().sort_by(order).last()).select(NO_KEYS.columns)


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _matches(pattern: str) -> pl.Expr:
    """Return whether `series_id` matches a pattern in which only `*` and `?` are special."""
    if not _is_pattern(pattern):
        return pl.col("series_id") == pattern
    return matches("series_id", [pattern])
