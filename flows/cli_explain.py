"""The verb `explain`: which readings and which other inputs moved a forecast, as a table and a picture."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Lake, NoOrchestrator, SettingsFile, instant_option, read_settings

if TYPE_CHECKING:
    from pipeline.evaluate.explain import Explanation


def explain(
    series: Annotated[str, typer.Argument(metavar="SERIES", help="The series id, as 'pump-1/flow'.")],
    origin: Annotated[datetime | None, instant_option("--origin", "When the forecast was issued.  (default: the newest tick)")] = None,
    step: Annotated[int, typer.Option(min=1, help="Which step of it; 1 is the first tick after the origin.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it into this file.")] = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,  # noqa: ARG001 (an explanation never uses Prefect)
) -> None:
    """Show which readings and which other inputs moved the median of a forecast, and by how much."""
    from flows.console import busy, note, write_json
    from pipeline.errors import SettingsError
    from pipeline.evaluate.explain import explain as explained

    if out is not None and out.suffix != ".png":
        raise SettingsError(f"--out requires a file that ends in .png; got {out}. Rename it.")
    with busy("explaining"):
        found = explained(read_settings(settings_file, lake), series, origin=origin, step=step)
    if out is not None:
        from pipeline.evaluate.explain_picture import draw_explanation

        draw_explanation(found, out)
    if as_json:
        write_json({**found.to_dict(), "picture": out})
        return
    _show(found)
    if out is not None:
        note(f"drawn into {out}")


def _show(explanation: "Explanation") -> None:
    from flows.console import stdout, table

    unit = f" {explanation.unit}" if explanation.unit else ""
    out = stdout()
    out.print(
        f"{explanation.series_id}: the median for {explanation.target:%Y-%m-%d %H:%M} UTC (step {explanation.step} from "
        f"{explanation.origin:%Y-%m-%d %H:%M}, model {explanation.model_version}) is {explanation.forecast:.4g}{unit}.",
        highlight=False,
        markup=False,
    )
    added = f"added{unit and f' ({unit.strip()})'}"
    out.print(table([{"part": part.part, added: part.amount} for part in explanation.parts]))
    lags = [{"ticks before": lag.lag, "reading of": lag.ts, "value": lag.reading, added: lag.amount} for lag in explanation.lags]
    out.print(table(lags, title="The readings that moved it most"))
