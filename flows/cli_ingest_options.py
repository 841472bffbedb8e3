"""The options that say how files are read, for the verbs that read some; typer alone is imported, so that `--help` is quick."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

if TYPE_CHECKING:
    from pipeline.ingest.ingest import IngestOptions
    from pipeline.settings import Aggregation


def takes_ingest_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of `_ingest_options` in the place of its parameter `options`, which then holds what they say."""
    own, shared = inspect.signature(verb).parameters, inspect.signature(_ingest_options).parameters

    @functools.wraps(verb)
    def command(**given: Any) -> None:  # noqa: ANN401 (typer has checked them)
        options = _ingest_options(**{name: given.pop(name) for name in shared})
        verb(**given, options=options)

    spread = [part for name, one in own.items() for part in (shared.values() if name == "options" else (one,))]
    vars(command)["__signature__"] = inspect.Signature(spread)  # where typer and inspect look for it
    command.__annotations__ = {part.name: part.annotation for part in spread}
    return command


def _ingest_options(  # noqa: PLR0913 (the options of a verb are a signature)
    *,
    ts: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="The stamp; give several to put a date and a time together.")
    ] = None,
    value: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="The value; several make a wide file.")] = None,
    series_id: Annotated[str | None, typer.Option(metavar="COLUMN", help="The whole series id.")] = None,
    device_id: Annotated[str | None, typer.Option(metavar="COLUMN", help="The device.")] = None,
    metric: Annotated[str | None, typer.Option(metavar="COLUMN", help="What was measured.")] = None,
    unit: Annotated[str | None, typer.Option(metavar="COLUMN", help="The unit of the value.")] = None,
    received_at: Annotated[str | None, typer.Option(metavar="COLUMN", help="When the reading was first seen.")] = None,
    seq: Annotated[str | None, typer.Option(metavar="COLUMN", help="The device's sequence number.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Device of files that name none.  (default: the file's name)")] = None,
    time_zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Zone of stamps without an offset, as UTC or Europe/Berlin.")
    ] = None,
    epoch_unit: Annotated[
        Literal["s", "ms", "us", "ns"] | None, typer.Option(help="Unit of stamps that are numbers.  (default: by magnitude)")
    ] = None,
    format: Annotated[  # noqa: A002 (the flag's name)
        Literal["csv", "ndjson", "parquet"] | None, typer.Option(help="Format of every file.  (default: by its name)")
    ] = None,
    aggregation: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=KIND", help="How readings of a metric become one value: mean, last, sum, counter.")
    ] = None,
) -> "IngestOptions":
    from pipeline.ingest.ingest import IngestOptions
    from pipeline.ingest.mapping import ColumnMapping

    mapping = ColumnMapping(
        ts=tuple(ts or ()),
        value=tuple(value or ()),
        series_id=series_id,
        device_id=device_id,
        metric=metric,
        unit=unit,
        received_at=received_at,
        seq=seq,
    )
    aggregations = _aggregations(aggregation or [])
    return IngestOptions(
        mapping=mapping, device=device, time_zone=time_zone, epoch_unit=epoch_unit, format=format, aggregation=aggregations
    )


def _aggregations(assignments: Sequence[str]) -> "dict[str, Aggregation]":
    """Read `METRIC=KIND` pairs.

    >>> _aggregations(["energy=counter"])
    {'energy': 'counter'}

    Raises:
        typer.BadParameter: where one is no pair, or its kind is unknown.
    """
    from pipeline.settings import Aggregation

    kinds: tuple[Aggregation, ...] = get_args(Aggregation)
    pairs = [assignment.rpartition("=") for assignment in assignments]
    known = {metric: kind for metric, _, said in pairs for kind in kinds if metric and kind == said}
    if len(known) < len(pairs):
        got = ", ".join(map(repr, assignments))
        raise typer.BadParameter(f"--aggregation requires METRIC=KIND, each metric once, KIND one of {', '.join(kinds)}; got {got}.")
    return known
