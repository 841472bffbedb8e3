"""Finds the input files under what the user named, and opens each by its format.

Formats: CSV (also TSV), NDJSON, Parquet; text may be gzip. Called by `ingest.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from pipeline.errors import DataError, SettingsError
from pipeline.ingest.ndjson import NdjsonSource
from pipeline.ingest.raw import Source
from pipeline.ingest.tables import CsvSource, ParquetSource

Format = Literal["csv", "ndjson", "parquet"]

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class InputFile:
    """One file to read.

    Attributes:
        path: where it is.
        format: how it is written.
        is_named: whether the user named it, by itself or by a pattern; else it was found in a folder.
    """

    path: Path
    format: Format
    is_named: bool = True

    @property
    def stem(self) -> str:
        """The name without .gz and without the suffix of the format: the device of a file that names none."""
        name = _without_gz(self.path)
        return name.stem if name.suffix.lower() in _SUFFIXES else name.name

    def open(self) -> Source:
        """Open it and read its header.

        Raises:
            DataError: when it is empty, damaged or no such format.
        """
        return open_source(self.path, self.format)


def open_source(path: Path, file_format: Format) -> Source:
    """Open one file by its format.

    Raises:
        DataError: when it is empty, damaged or no such format.
    """
    readers: dict[Format, type[CsvSource] | type[NdjsonSource] | type[ParquetSource]] = {
        "csv": CsvSource,
        "ndjson": NdjsonSource,
        "parquet": ParquetSource,
    }
    return readers[file_format](path)


def discover(paths: Sequence[Path], file_format: str | None = None) -> tuple[list[InputFile], list[Path]]:
    """Expand files, folders (with all below them) and glob patterns.

    Args:
        paths: as the user gave them, in this order; the files under each come sorted.
        file_format: csv, ndjson or parquet for everything; None decides by suffix.

    Returns:
        The files, each once, and those in folders that are no input by their suffix.

    Raises:
        SettingsError: when `file_format` is none of ours.
        DataError: when a path does not exist, holds no input, or has no known suffix.
    """
    if file_format is not None and file_format not in get_args(Format):
        raise SettingsError(f"--format requires one of {', '.join(get_args(Format))}; got {file_format!r}. Correct it.")
    found: dict[Path, InputFile] = {}
    ignored: list[Path] = []
    for path in paths:
        for file in _expand(path):
            known = cast(Format | None, file_format) or _SUFFIXES.get(_without_gz(file).suffix.lower())
            if known is not None:
                found.setdefault(file.resolve(), InputFile(file, known, not path.is_dir()))
            elif path.is_dir():
                ignored.append(file)
            else:
                endings = ", ".join(_SUFFIXES)
                raise DataError(f"ingest requires a file that ends in {endings} (or in these and .gz); got {file}. Name it: --format.")
    if not found:
        named = ", ".join(str(path) for path in paths) or "no path"
        raise DataError(f"ingest requires at least one CSV, NDJSON or Parquet file; got {named}, which holds none. Check the path.")
    return list(found.values()), ignored


def _without_gz(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _expand(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    if any(sign in str(path) for sign in "*?["):
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        return sorted(file for file in anchor.glob(str(path.relative_to(anchor) if path.is_absolute() else path)) if file.is_file())
    raise DataError(f"ingest requires a file, a folder or a pattern that exists; got {path}, which does not. Check the path.")


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)
