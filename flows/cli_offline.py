"""The verb `fill`: gaps in closed history, filled from both sides, into a report that no forecaster takes."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, Series, SettingsFile, read_settings


def fill(  # noqa: PLR0913 (a verb's options are its signature)
    output: Annotated[Path, typer.Argument(metavar="FILE", help="The report: ends in .parquet, .csv or .json.")],
    *,
    series: Series = None,
    companion: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="Read this metric of the same device along (repeatable).")
    ] = None,
    longest_gap: Annotated[int, typer.Option(min=1, help="Ticks; longer gaps stay open.")] = 168,
    steps: Annotated[int, typer.Option(min=1, help="Training batches; a thousand take about a minute.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Decides everything that is random.")] = 0,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (never uses Prefect)
) -> None:
    """Fill gaps in history from both sides, for a report; each value says in knowledge_time what it has read."""
    from flows.console import busy, stdout, write_json
    from pipeline.offline.fill import FillSettings
    from pipeline.offline.report import fill_lake
    from pipeline.query.exports import require_place, write_frame

    require_place(output)
    settings = read_settings(settings_file, lake)
    how = FillSettings(longest_gap=longest_gap, num_steps=steps, companions=tuple(companion or ()), seed=seed)
    with busy("filling gaps"):
        frame = fill_lake(settings, series, how)
    write_frame(frame, output)
    gaps, left = (~frame["observed"]).sum(), frame["value"].null_count()
    if as_json:
        write_json({"file": str(output), "series": frame["series_id"].n_unique(), "filled": gaps - left, "left_open": left})
        return
    stdout().print(f"{gaps - left:,} missing ticks filled in {output}; {left:,} left open.", highlight=False)
