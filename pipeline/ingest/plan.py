"""Decides, before anything is stored, how each file is read: its columns, its stamps and what is left out, from its header and first rows.

So that a file that cannot be read stops a run before its first commit. Called by `ingest.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from pipeline.errors import DataError
from pipeline.ingest.formats import InputFile
from pipeline.ingest.mapping import ColumnMapping, NoReadingsError, decimal_comma, infer_mapping, prune_wide
from pipeline.ingest.raw import Source
from pipeline.ingest.timestamps import EPOCH_RULE, StampRules, compose_stamp, infer_epoch_unit, parse_stamps

_SAMPLE_ROWS = 10_000


@dataclass(frozen=True)
class FilePlan:
    """How one file is read.

    Attributes:
        file: where it is.
        source: the open file.
        mapping: complete.
        stamps: the declared zone, and the epoch unit, declared or inferred.
        skipped: columns that give no reading.
        notes: what the user should know of these decisions, one sentence each.
    """

    file: InputFile
    source: Source
    mapping: ColumnMapping
    stamps: StampRules
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


def plan_files(files: Sequence[InputFile], given: ColumnMapping, stamps: StampRules) -> tuple[list[FilePlan], list[str]]:
    """Plan all files of a run.

    Returns:
        The plans, and a sentence for each file of a folder that holds no readings.

    Raises:
        DataError: as `plan_file`; also when no file holds readings.
    """
    plans: list[FilePlan] = []
    left_out: list[str] = []
    for file in files:
        try:
            plans.append(plan_file(file, given, stamps))
        except DataError as error:
            has_readings = not isinstance(error, NoReadingsError) and file.path.stat().st_size > 0
            if has_readings or file.is_named or len(files) == 1:
                raise
            left_out.append(f"{file.path.name}: left out. {error}")
    if not plans:
        raise DataError(f"ingest requires at least one file of readings; got {len(files)} without. The first: {left_out[0]}")
    return plans, left_out


def plan_file(file: InputFile, given: ColumnMapping, stamps: StampRules) -> FilePlan:
    """Look at a file's header and first rows, and decide.

    Args:
        file: what to read.
        given: the columns that the user named.
        stamps: the zone and epoch unit that the user declared.

    Raises:
        NoReadingsError: when its columns describe none.
        DataError: when it is empty or damaged, a column is missing, none holds numbers, or its stamps are naive without a declared zone.
    """
    name = file.path.name
    source = file.open()
    mapping = infer_mapping(source.columns, given, source=name)
    unused = tuple(column for column in source.columns if column not in mapping.columns)
    sample = next((batch.rows for batch in source.batches(mapping.columns, _SAMPLE_ROWS)), None)
    if sample is None:
        return FilePlan(file, source, mapping, stamps, unused, (f"{name} has a header and no rows.",))
    notes = []
    if mapping.layout == "wide" and not given.value:
        mapping, pruned = prune_wide(mapping, sample)
        unused += pruned
        _refuse_decimal_commas(name, sample.select(pruned))
        if not mapping.value:
            raise DataError(
                f"{name} requires a column of numbers; got only text in {', '.join(map(repr, pruned[:12]))}. Name it with --value."
            )
    raw = compose_stamp(sample, mapping.ts)
    arrivals = [sample[mapping.received_at]] if mapping.received_at is not None else []
    epoch_unit = stamps.epoch_unit or next((unit for unit in map(infer_epoch_unit, [raw, *arrivals]) if unit is not None), None)
    if epoch_unit != stamps.epoch_unit:
        notes.append(f"{name}: its epoch numbers are read as {epoch_unit} ({EPOCH_RULE}).")
        stamps = replace(stamps, epoch_unit=epoch_unit)
    _refuse_naive(name, raw, stamps)
    if unused:
        notes.append(f"{name}: skipped the columns {', '.join(map(repr, unused))}, which hold no reading.")
        if mapping.layout == "wide" and mapping.device_id is None and raw.is_duplicated().any():
            notes.append(f"{name}: its stamps repeat; if one of the skipped columns names the device, pass it as --device-id.")
    return FilePlan(file, source, mapping, stamps, unused, tuple(notes))


def _refuse_decimal_commas(name: str, skipped: pl.DataFrame) -> None:
    """Refuse a wide file of which a whole column of numbers would be skipped as text."""
    for column in skipped:
        if (example := decimal_comma(column)) is not None:
            raise DataError(
                f"{name} requires plain numbers with a decimal point; got {example!r} in {column.name!r}. Write them with a point "
                "(Polars: read_csv(…, decimal_comma=True).write_csv(…)), or name the columns to read with --value."
            )


def _refuse_naive(name: str, raw: pl.Series, stamps: StampRules) -> None:
    """Refuse a file none of whose first stamps says its zone; single naive ones among others go to quarantine instead."""
    parsed = parse_stamps(raw, stamps)
    naive = raw.filter(parsed["stamp_error"] == "naive_timestamp")
    if len(naive) and parsed["stamp"].null_count() == len(parsed):
        raise DataError(
            f"{name} requires stamps with an offset, or a declared zone; got naive ones such as {str(naive[0])!r}. "
            "Declare their zone with --time-zone (UTC, or the site's: Europe/Berlin)."
        )
