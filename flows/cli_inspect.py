"""The verbs that show what came in: `series` with their states, `retire`, and `quarantine`, what could not be used."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, Series, SettingsFile, patterns, read_settings


class StateName(StrEnum):
    """`pipeline.store.series_state.State`, as typer reads a list of them."""

    NEW = "new"
    WARMING = "warming"
    ACTIVE = "active"
    SILENT = "silent"
    RETIRED = "retired"


def series(
    *,
    state: Annotated[list[StateName] | None, typer.Option(help="Only series in this state; repeatable.")] = None,
    series: Series = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """List the series, with their state and when they were last heard of."""
    from flows.console import note, write_json
    from pipeline.clock import SystemClock
    from pipeline.store.series import list_series

    found = list_series(
        read_settings(settings_file, lake), SystemClock(), patterns=patterns(series), states=[one.value for one in state or ()]
    )
    if as_json:
        write_json(found.to_dicts())
    elif found.is_empty():
        note("No series matches. `tidecast series` without options lists all of them.")
    else:
        _print_table(found.rows(named=True))


def retire(
    series: Annotated[list[str], typer.Argument(metavar="SERIES", help="Series ids or patterns, as 'pump-7/*'.")],
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Forecast them again.")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Stop forecasting series for good; their history stays, and what still arrives is stored."""
    from flows.console import stdout, write_json
    from pipeline.clock import SystemClock
    from pipeline.store.series import retire_series

    chosen = retire_series(read_settings(settings_file, lake), SystemClock(), series, undo=undo)
    if as_json:
        write_json({"series": chosen, "retired": not undo})
    else:
        done = "forecast again" if undo else "retired"
        stdout().print(f"{len(chosen):,} series {'is' if len(chosen) == 1 else 'are'} {done}.", highlight=False)


def quarantine(
    *,
    connector: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only what came in by this, as 'mqtt:*' or 'file:a.csv'.")
    ] = None,
    code: Annotated[str | None, typer.Option(metavar="CODE", help="Only with this error code.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Payloads to show, the newest first.")] = 20,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Show what could not be used: how much, why, and the newest payloads, cut short and with control characters written out."""
    from flows.console import note, stdout, write_json
    from pipeline.query.quarantined import read_quarantine
    from pipeline.store.lake import Lake as OpenLake

    report = read_quarantine(OpenLake(read_settings(settings_file, lake).lake), connector=connector, code=code, limit=limit)
    if as_json:
        write_json(report.to_dict())
    elif not report.total:
        codes = f" Codes that do: {', '.join(report.codes)}." if report.codes else ""
        note(f"Nothing that matches lies in quarantine.{codes}")
    else:
        _print_table(report.counts.rows(named=True))
        if len(report.newest):
            stdout().print("\nThe newest:")
            for payload in report.newest.iter_rows(named=True):
                _print_payload(payload)


def _print_payload(payload: Mapping[str, object]) -> None:
    """Write where a payload came from, then why it could not be used and how it begins: a table of these would be too wide to read."""
    from flows.console import cell, stdout

    where = "  ".join(cell(payload[name]) for name in ("received_at", "connector", "position"))
    lines = f"{where}  {payload['num_bytes']:,} bytes", f"    {cell(payload['error_text'])}", f"    {payload['payload']}"
    stdout().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _print_table(rows: Iterable[Mapping[str, object]]) -> None:
    """Draw rows whose texts come from devices: nothing in them is markup."""
    from rich.markup import escape

    from flows.console import stdout, table

    safe = [{name: escape(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    stdout().print(table(safe))
