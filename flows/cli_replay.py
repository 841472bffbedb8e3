"""The verb `replay-quarantine`: what could not be used when it came, parsed again."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, read_settings

if TYPE_CHECKING:
    from pipeline.listen.replay import ReplayReport


def replay_quarantine(
    *,
    connector: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only what came in by this, as 'mqtt:site/*'.")] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Let stale_timestamp, future_timestamp or missing_birth pass; repeatable. Look at them first."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would become of it; store nothing.")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Parse quarantined payloads of live sources again, with today's routes and units; what is good now becomes readings."""
    from flows.console import busy, write_json
    from pipeline.clock import SystemClock
    from pipeline.listen.replay import replay_quarantine as replay

    with busy("parsing again"):
        report = replay(
            read_settings(settings_file, lake), SystemClock(), connector=connector, accept=tuple(accept or ()), is_dry_run=dry_run
        )
    if as_json:
        write_json(report.to_dict())
    else:
        _print(report)


def _print(report: "ReplayReport") -> None:
    from rich.markup import escape

    from flows.console import note, stdout, table
    from pipeline.query.printable import printable

    out = stdout()
    stored = "that would be stored" if report.is_dry_run else "stored"
    out.print(
        f"Payloads read again: {report.payloads:,}. Readings {stored}: {report.accepted:,}; there already: {report.duplicate:,}. "
        f"Payloads that still hold none: {report.refused:,}.",
        highlight=False,
    )
    if report.reasons:
        out.print(table([{"refused because": escape(reason), "payloads": count} for reason, count in report.reasons.items()]))
    if report.files:
        note(f"{sum(report.files.values()):,} rows came from files; mend and ingest these again:")
        out.print(table([{"file": escape(printable(name)), "rows": count} for name, count in report.files.items()]))
