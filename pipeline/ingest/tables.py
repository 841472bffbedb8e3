"""Reads CSV by blocks of lines and Parquet by slices, with bounded memory; one line is one row, whatever is in it.

Called through `formats.open_source`. Cells stay text: what they mean is decided by `validate.py`, so that no row is lost to a parser.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from pipeline.errors import DataError, first_line
from pipeline.ingest.raw import BROKEN_SCHEMA, NOT_UTF8, ORIGIN_SCHEMA, RawBatch, broken_rows, read_head, read_lines

_SEPARATORS = (",", ";", "\t", "|")
_QUOTE = '"'
_NO_READING = (pl.Binary, pl.Duration)


class CsvSource:
    """A CSV file with a header; its separator is the one that the header holds most of.

    A quoted field may hold the separator but no line break: a stray quote must not swallow the rest of the file.
    """

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            DataError: when the file is empty, binary, ends its lines by CR alone or names a column twice.
        """
        self._path = path
        header = _header(path)
        self._separator = max(_SEPARATORS, key=header.count)
        self.columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=self._separator)))
        twice = [name for name, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise DataError(
                f"{path.name} requires distinct column names; got {', '.join(map(repr, twice[:5]))} more than once. Rename them."
            )

    def batches(self, columns: Sequence[str], num_rows: int) -> Iterator[RawBatch]:
        """Yield `num_rows` lines at a time as rows of text."""
        for block in read_lines(self._path, num_rows, skip=1):
            yield self._parse(block, columns)

    def _parse(self, block: pl.DataFrame, columns: Sequence[str]) -> RawBatch:
        is_text = pl.col("text").is_not_null()
        is_quoted = pl.col("text").str.contains(_QUOTE, literal=True)
        plain = self._parse_plain(block.filter(is_text & ~is_quoted))
        rows = pl.concat([plain, self._parse_quoted(block.filter(is_text & is_quoted), plain.schema)]).sort("line")
        fits = pl.col("num_fields").eq_missing(len(self.columns))
        got = pl.col("num_fields").cast(pl.String).fill_null("an open quote")
        misfit = pl.concat_str(pl.lit(f"A line requires {len(self.columns)} fields; got "), got, pl.lit("."))
        broken = [
            broken_rows(self._path.name, block.filter(~is_text), "unparseable_line", NOT_UTF8),
            broken_rows(self._path.name, rows.filter(~fits), "unparseable_line", misfit),
        ]
        good = rows.filter(fits)
        cells = good["cells"].struct.unnest().select(pl.col(f"{self.columns.index(name)}").alias(name) for name in columns)
        return RawBatch(self._path.name, cells, good.select(ORIGIN_SCHEMA.names()), pl.concat(broken))

    def _parse_plain(self, lines: pl.DataFrame) -> pl.DataFrame:
        """Split the lines without quotes, all at once, into the struct `cells` with the fields 0, 1, …; count them in `num_fields`."""
        names = [f"{index}" for index in range(len(self.columns))]
        return lines.with_columns(
            (pl.col("text").str.count_matches(self._separator, literal=True).cast(pl.Int64) + 1).alias("num_fields"),
            pl.col("text").str.split_exact(self._separator, len(names) - 1).struct.rename_fields(names).alias("cells"),
        )

    def _parse_quoted(self, lines: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
        """Split the lines that hold quotes, one by one; `num_fields` is null where a quote stays open."""
        fields = [self._split(text) for text in lines["text"]]
        cells = [dict(zip((f"{i}" for i in range(len(self.columns))), row or [], strict=False)) for row in fields]
        return lines.with_columns(
            pl.Series("num_fields", [None if row is None else len(row) for row in fields], dtype=pl.Int64),
            pl.Series("cells", cells, dtype=schema["cells"]),
        )

    def _split(self, text: str) -> list[str] | None:
        try:
            return next(csv.reader([text], delimiter=self._separator, strict=True))
        except csv.Error:
            return None


class ParquetSource:
    """A Parquet file; columns of lists, structs and bytes hold no reading and are left out."""

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            DataError: when the file is no Parquet or damaged.
        """
        self._path = path
        try:
            self._schema = pl.read_parquet_schema(path)
            self._num_rows = pl.scan_parquet(path).select(pl.len()).collect().item()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _damaged(path, error) from error
        self.columns = tuple(name for name, dtype in self._schema.items() if not dtype.is_nested() and dtype not in _NO_READING)

    def batches(self, columns: Sequence[str], num_rows: int) -> Iterator[RawBatch]:
        """Yield `num_rows` rows at a time with the file's own types."""
        table = pl.scan_parquet(self._path).select(columns)
        for start in range(0, self._num_rows, num_rows):
            try:
                rows = table.slice(start, num_rows).collect()
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # a damaged page can panic inside Polars
                raise _damaged(self._path, error) from error
            line = pl.int_range(start + 1, start + 1 + len(rows), eager=True)
            origins = pl.DataFrame({"line": line, "item": None, "payload": None}, schema=ORIGIN_SCHEMA)
            yield RawBatch(self._path.name, rows, origins, BROKEN_SCHEMA.to_frame())


def _header(path: Path) -> str:
    line = read_head(path)[0].rstrip(b"\r")
    try:
        header = line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} requires a header in UTF-8; got {line[:80]!r}. Convert the file: iconv -t UTF-8.") from error
    if "\r" in header:
        raise DataError(f"{path.name} requires lines that end in LF or CR LF; got CR alone. Convert it: tr '\\r' '\\n'.")
    return header


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path.name} requires a whole Parquet file; got {first_line(error)}. Fetch or write it again.")
