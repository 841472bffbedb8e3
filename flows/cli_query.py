"""The verb `query`: forecasts out of the lake, as a table or a file. Imports neither Prefect nor torch nor MLflow."""

import io
import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, Series, SettingsFile, duration_option, instant_option, read_settings

if TYPE_CHECKING:
    import polars as pl

Format = Literal["table", "json", "csv", "parquet", "nixtla"]
_HOLDS = {"table": ".csv", "json": ".json", "csv": ".csv", "parquet": ".parquet", "nixtla": ".csv"}  # what a file of a format is


def query(  # noqa: PLR0913 (one option for each way to narrow a query)
    *,
    series: Series = None,
    device: Annotated[str | None, typer.Option(help="Only this device; * and ? match.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric; * and ? match.")] = None,
    latest: Annotated[
        bool | None, typer.Option("--latest/--every-origin", help="The newest origin of each series (default), or every one.")
    ] = None,
    start: Annotated[datetime | None, instant_option("--from", "First origin; with --to it asks for every origin between.")] = None,
    end: Annotated[datetime | None, instant_option("--to", "Last origin.")] = None,
    step: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="Only this step, 1 is the first tick after the origin.")] = None,
    lead_time: Annotated[timedelta | None, duration_option("--lead-time", "Only the target this far from its origin.")] = None,
    at: Annotated[datetime | None, instant_option("--at", "Only what was forecast for this instant.")] = None,
    as_of: Annotated[datetime | None, instant_option("--as-of", "What the lake said at this instant.")] = None,
    model_version: Annotated[str | None, typer.Option(metavar="VERSION", help="Only forecasts of this model.")] = None,
    with_actuals: Annotated[bool, typer.Option("--with-actuals", help="Add what came true, as far as it was known.")] = False,
    inputs: Annotated[bool, typer.Option("--inputs", help="Instead of forecasts, the observations that each of them could see.")] = False,
    format: Annotated[Format | None, typer.Option(help="(default: table, or by the ending of FILE) nixtla: CSV for its tools.")] = None,  # noqa: A002 (the flag's name)
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")] = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (a query never uses Prefect)
) -> None:
    """Read forecasts: one row for each target time, with a column for each quantile."""
    from pipeline.query.frames import query_forecasts

    form: Format | None = "json" if as_json else format
    _require_agreement(form, output)
    _require_forecasts(form, inputs=inputs, with_actuals=with_actuals)
    settings = read_settings(settings_file, lake)
    ask = partial(
        query_forecasts,
        settings.lake,
        series=series,
        device=device,
        metric=metric,
        start=start,
        end=end,
        as_of=as_of,
        model_version=model_version,
    )
    chosen = latest if latest is not None else start is None and end is None
    frame = ask(latest=chosen, step=step, lead_time=lead_time, at=at, with_actuals=with_actuals)
    is_too_far = frame.is_empty() and (step is not None or lead_time is not None)
    if inputs:
        from pipeline.query.inputs import query_inputs

        frame = query_inputs(settings.lake, frame)
    _write(frame, form, output, provenance=at is not None)
    if is_too_far:
        _say_how_far(ask(latest=True))


def _require_agreement(form: Format | None, output: Path | None) -> None:
    """Refuse a file whose ending says another format than the one asked for; an ending that says nothing is left alone.

    Raises:
        SettingsError: naming both.
    """
    from pipeline.errors import SettingsError

    if form is None or output is None:
        return
    if output.suffix in _HOLDS.values() and output.suffix != _HOLDS[form]:
        raise SettingsError(f"--format {form} requires a file that ends in {_HOLDS[form]}; got {output}. Rename it, or drop --format.")


def _require_forecasts(form: Format | None, *, inputs: bool, with_actuals: bool) -> None:
    """Refuse what is said of forecasts where their inputs are asked for.

    Raises:
        SettingsError: naming the option.
    """
    from pipeline.errors import SettingsError

    other = [name for name, is_asked in {"--format nixtla": form == "nixtla", "--with-actuals": with_actuals}.items() if is_asked]
    if inputs and other:
        raise SettingsError(f"--inputs requires a query without options that say how forecasts are written; got {other[0]}. Drop one.")


def _write(frame: "pl.DataFrame", form: Format | None, output: Path | None, *, provenance: bool) -> None:
    """Write a frame to a file or to stdout; a table says where its forecasts come from if asked to.

    Raises:
        SettingsError: where binary data would reach a terminal, or a file cannot be written.
    """
    from pipeline.errors import SettingsError
    from pipeline.query.exports import write_frame

    if output is not None and form is None:
        write_frame(frame, output)
    elif output is not None:
        try:
            output.write_bytes(_content(frame, form or "csv"))
        except OSError as error:
            raise SettingsError(f"--output requires a place that can be written; got {output}: {error}. Choose another.") from error
    elif form is None or form == "table":
        _draw(frame, provenance=provenance)
    elif form == "parquet" and sys.stdout.isatty():
        raise SettingsError("--format parquet requires a file; got a terminal. Add --output FILE.")
    else:
        sys.stdout.buffer.write(_content(frame, form))
        sys.stdout.flush()


def _draw(frame: "pl.DataFrame", *, provenance: bool) -> None:
    from flows.console import note, stdout
    from pipeline.query.exports import to_inputs_table, to_table

    if frame.is_empty():
        note(
            "No forecast matches. `tidecast series` lists the series there are, `tidecast query` alone their newest forecasts;"
            " with --as-of, only forecasts made by then match."
        )
    else:
        stdout().print(to_table(frame, provenance=provenance) if "step" in frame.columns else to_inputs_table(frame))


def _say_how_far(frame: "pl.DataFrame") -> None:
    """Say how far the newest forecasts reach, where there are any."""
    import polars as pl

    from flows.console import note

    if not frame.is_empty():
        lead, step = frame.select(pl.col("ts") - pl.col("origin"), "step").sort("ts").row(-1)
        note(f"The longest lead of the newest forecasts is {lead}, which is step {step}.")


def _content(frame: "pl.DataFrame", form: Format) -> bytes:
    """Return what a file of this format holds; a table in a file is CSV."""
    from pipeline.query.exports import to_csv, to_json, to_nixtla

    if form == "json":
        return to_json(frame).encode() + b"\n"
    if form == "parquet":
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        return buffer.getvalue()
    return to_csv(to_nixtla(frame) if form == "nixtla" else frame).encode()
