"""What the readers of all formats hand on: rows as they were written, with the position and the bytes each came from.

Also the reading of text by blocks of lines, which CSV and NDJSON share. Called by `tables.py` and `ndjson.py`.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import polars as pl

from pipeline.errors import DataError

MISSING_TEXTS = ("", "NA", "na", "N/A", "n/a", "#N/A", "null", "NULL", "Null", "None", "none", "NaN", "nan", "NAN", "NaT", "-", "--")
ORIGIN_SCHEMA = pl.Schema({"line": pl.Int64, "item": pl.Int64, "payload": pl.Binary})
BROKEN_SCHEMA = pl.Schema({"position": pl.String, "payload": pl.Binary, "error_code": pl.String, "error_text": pl.String})
NOT_UTF8 = "A line requires text in UTF-8; got other bytes."
_SNIFFED_BYTES = 65_536
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RawBatch:
    """Some rows of one file, nothing judged yet.

    Attributes:
        source: name of the file.
        rows: the columns asked for, as text or as the file's own types.
        origins: for each row its line (from 1, int64), its item (number in a JSON array on that line, from 0, null outside of one)
            and its payload (raw bytes; null where the format has no lines and `rows` stand for themselves).
        broken: what could not become a row, as in `BROKEN_SCHEMA`.
    """

    source: str
    rows: pl.DataFrame
    origins: pl.DataFrame
    broken: pl.DataFrame

    def evidence(self, index: pl.Series) -> pl.DataFrame:
        """Return where rows came from and what they were.

        Args:
            index: numbers of `rows`, from 0.

        Returns:
            position ("file:line" or "file:line[item]") and payload (bytes), one row for each index.
        """
        origins = self.origins[index]
        if origins["payload"].null_count():
            as_json = self.rows[index].select(pl.struct(pl.all()).struct.json_encode().cast(pl.Binary).alias("payload"))
            origins = origins.with_columns(as_json["payload"])
        return origins.select(position(self.source), "payload")


def position(source: str) -> pl.Expr:
    """Name the position of a row by its `line` and `item`."""
    return pl.concat_str(pl.lit(f"{source}:"), "line", pl.format("[{}]", "item").fill_null("")).alias("position")


def said(name: str | None) -> pl.Expr:
    """Read a column as text, with what stands for nothing as null, and so a column that is not there."""
    if name is None:
        return pl.lit(None, pl.String)
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(~text.is_in(MISSING_TEXTS)).then(text)


class Source(Protocol):
    """An open input file, whatever its format."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the file."""

    def batches(self, columns: Sequence[str], num_rows: int) -> Iterator[RawBatch]:
        """Yield the rows in order, `num_rows` at a time (more where a line holds several), with only `columns`."""


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, through gzip where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def read_head(path: Path) -> list[bytes]:
    """Return the complete lines at the start of a text file.

    Raises:
        DataError: when the file is empty, unreadable or no text.
    """
    try:
        with open_bytes(path) as handle:
            head = handle.read(_SNIFFED_BYTES)
            first_line_rest = b"" if b"\n" in head else handle.readline()
    except (OSError, EOFError, zlib.error) as error:
        what = "gzip data, as its name says" if isinstance(error, (gzip.BadGzipFile, EOFError, zlib.error)) else "permission to read it"
        raise DataError(f"{path.name} requires {what}; got {error}. Mend the file or its name.") from error
    if not head.removeprefix(_BOM).strip():
        raise DataError(f"{path.name} requires at least one line; got an empty file. Check what wrote it.")
    lines = (head + first_line_rest).removeprefix(_BOM).split(b"\n")
    lines = lines[:-1] if len(lines) > 1 and len(head) == _SNIFFED_BYTES else lines
    if sum(b"\0" in line or _decode(line) is None for line in lines) > len(lines) / 2:
        raise DataError(f"{path.name} requires text in UTF-8; got binary data. Name its format with --format, or convert it.")
    return [line for line in lines if line.strip()]


def read_lines(path: Path, num_lines: int, *, skip: int = 0) -> Iterator[pl.DataFrame]:
    """Yield blocks of the lines that are not blank, in order.

    Args:
        path: a text file, gzip or not.
        num_lines: lines in a block, which bounds the memory.
        skip: lines to leave out at the start.

    Yields:
        The columns of `ORIGIN_SCHEMA` (the payload without its line end) and `text`, null where the bytes are not UTF-8.

    Raises:
        DataError: when the file ends inside a gzip stream; the blocks before it are good.
    """
    with open_bytes(path) as handle:
        first = skip + 1
        try:
            for _ in range(skip):
                handle.readline()
            while lines := list(islice(handle, num_lines)):
                if first == 1:
                    lines[0] = lines[0].removeprefix(_BOM)
                yield _block([line.rstrip(b"\r\n") for line in lines], first)
                first += len(lines)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path.name} requires a whole gzip file; got {error} near line {first}. Fetch it again and re-run.") from error


def broken_rows(source: str, origins: pl.DataFrame, error_code: str, error_text: str | pl.Expr) -> pl.DataFrame:
    """Describe what could not become a row, as in `BROKEN_SCHEMA`.

    Args:
        source: name of the file.
        origins: line, item and payload.
        error_code: as stored in quarantine.
        error_text: one sentence, or an expression over `origins` that makes one.
    """
    text = pl.lit(error_text) if isinstance(error_text, str) else error_text
    return origins.select(position(source), "payload", pl.lit(error_code).alias("error_code"), text.alias("error_text"))


def _block(lines: list[bytes], first: int) -> pl.DataFrame:
    payload = pl.Series("payload", lines, dtype=pl.Binary)
    try:
        text = payload.cast(pl.String)
    except pl.exceptions.ComputeError:  # Polars names no row: look at each
        text = pl.Series([_decode(line) for line in lines], dtype=pl.String)
    line = pl.int_range(first, first + len(lines), eager=True)
    block = pl.DataFrame({"line": line, "item": None, "payload": payload, "text": text}, schema_overrides={"item": pl.Int64})
    return block.filter(pl.col("text").is_null() | (pl.col("text").str.strip_chars() != ""))


def _decode(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None
