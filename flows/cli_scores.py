"""The verb `scores`: how good live forecasts have been of late. Imports neither Prefect nor torch nor MLflow."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, Series, SettingsFile, duration_option, patterns, read_settings

if TYPE_CHECKING:
    from pipeline.query.scores import ScoreReport

DAY = timedelta(days=1)
MAX_ROWS = 48


def scores(
    *,
    series: Series = None,
    last: Annotated[
        timedelta | None, duration_option("--last", "Targets of this long, back from the newest that came true.  (default: 1d)")
    ] = None,
    by: Annotated[
        Literal["series", "lead", "model"], typer.Option(help="A row for each of these; errors of two metrics never mix.")
    ] = "series",
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (a report never uses Prefect)
) -> None:
    """Show how good the forecasts were that came true of late: error, bias, pinball and coverage."""
    from flows.console import write_json
    from pipeline.query.scores import query_scores

    report = query_scores(read_settings(settings_file, lake).lake, series=patterns(series), last=last or DAY, by=by)
    if as_json:
        write_json(report.to_dict())
    else:
        _draw(report)


def _draw(report: "ScoreReport") -> None:
    from flows.console import note, stdout, table

    if report.rows.is_empty():
        note("No forecast of such a series has come true. `tidecast forecast`, run again after each tick, scores those before it.")
        return
    out = stdout()
    out.print(f"Targets after {report.start:%Y-%m-%d %H:%M} and up to {report.end:%Y-%m-%d %H:%M} UTC.", highlight=False)
    shown = report.rows.head(MAX_ROWS)
    out.print(table([{**row, "coverage": _percent(row["coverage"])} for row in shown.iter_rows(named=True)]))
    if report.rows.height > MAX_ROWS:
        note(f"{report.rows.height - MAX_ROWS:,} more rows; --json has all of them.")
    note("bias: mean of actual − median · coverage: of the 80 % interval · forecasts of one target overlap: no separate trials")


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.0f} %"
