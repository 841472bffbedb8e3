"""The verb `demo`: the four flows over the sample that comes with the repository, then what they left, on one screen."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, NoOrchestrator, SettingsFile, read_settings
from flows.stages import stages

if TYPE_CHECKING:
    import polars as pl

    from pipeline.evaluate.backtest import BacktestReport
    from pipeline.settings import Settings

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
SHOWN_SERIES, SHOWN_LEADS = 4, (1, 6, 24)
TRAIN_SECONDS = 75.0  # with the servers' start, backtest and forecast it keeps the whole under five minutes on two cores


@dataclass(frozen=True)
class Skill:
    """How much better than the seasonal naive forecast, over the origins that training did not see.

    Attributes:
        wql: 1 − weighted quantile loss over that of seasonal naive; 0 is no better, 1 is perfect.
        mae_ratio: mean absolute error over that of seasonal naive; below 1 is better.
        coverage_80: share of what came true inside the 80 % interval; 0.8 is right.
    """

    wql: float
    mae_ratio: float
    coverage_80: float


def demo(
    sample: Annotated[Path, typer.Option(metavar="FOLDER", help="Readings to use, as `tidecast simulate` writes them.")] = SAMPLE,
    lake: Annotated[str, typer.Option(help="Where everything goes; run again, it goes on from there.")] = "data/demo",
    max_seconds: Annotated[float, typer.Option(min=1, help="Time for training.")] = TRAIN_SECONDS,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Run the whole river over the sample: ingest, train, backtest, forecast, query."""
    from flows.console import write_json
    from pipeline.query.frames import query_forecasts

    readings = _readings_of(sample)
    own = sample / "tidecast.toml"
    settings = read_settings(settings_file or (own if own.is_file() else None), lake, train={"max_seconds": max_seconds})
    report, model_version = _run(readings, settings, no_orchestrator)
    forecasts = query_forecasts(settings.lake)
    skill = skill_against_naive(report)
    commands = next_commands(lake, forecasts["series_id"][0])
    if as_json:
        found = {"model_version": model_version, "forecasts": len(forecasts), "skill": vars(skill), "pictures": report.pictures}
        write_json({**found, "next": commands})
    else:
        _show(_leads(forecasts), skill, report.pictures, commands)


def _readings_of(sample: Path) -> list[Path]:
    """Find a simulated fleet's readings, without the ledger of its faults beside them.

    Raises:
        DataError: where there are none.
    """
    from pipeline.errors import DataError

    found = sorted(sample.glob("readings.*"))
    if not found:
        raise DataError(f"--sample requires a folder with readings.*; got {sample}. Make one: tidecast simulate FOLDER.")
    return found


def _run(readings: list[Path], settings: "Settings", no_orchestrator: bool) -> "tuple[BacktestReport, str]":
    """Run the four stages in order, saying on stderr what goes on and what came out."""
    from flows.console import busy, note, watch_training
    from pipeline.evaluate.backtest import BacktestRequest
    from pipeline.ingest.ingest import IngestOptions
    from pipeline.train.train import TrainRequest

    run = stages(no_orchestrator)
    note("1/4 ingest" + ("" if no_orchestrator else " (Prefect starts a server first: some 15 s)"))
    with busy("ingesting"):
        ingested = run.ingest(readings, IngestOptions(), settings).ingested
    note(
        f"    {ingested.accepted:,} readings accepted; {ingested.duplicate:,} duplicate and {ingested.quarantined:,} unusable, as simulated"
    )
    note(f"2/4 train (at most {settings.train.max_seconds:.0f} s)")
    with watch_training(settings.train.max_seconds):
        trained = run.train(TrainRequest(), settings)
    note(f"    model {trained.model_version}, MLflow run {trained.run_id}")
    note("3/4 backtest, over the origins that training did not see")
    with busy("backtesting"):
        report = run.backtest(BacktestRequest(), settings)
    note("4/4 forecast")
    with busy("forecasting"):
        forecast = run.forecast(1, settings)
    note(f"    {forecast.rows_written:,} forecasts written for {forecast.series:,} series")
    return report, trained.model_version


def skill_against_naive(report: "BacktestReport") -> Skill:
    """Compare the model with the seasonal naive forecast."""
    from pipeline.evaluate.scoring import MODEL, SEASONAL_NAIVE

    ours, naive = report.overall[MODEL], report.overall[SEASONAL_NAIVE]
    return Skill(1 - ours["wql"] / naive["wql"], ours["mae"] / naive["mae"], ours["coverage_80"])


def _leads(forecasts: "pl.DataFrame") -> "pl.DataFrame":
    """Keep a few lead times of a few series, one metric after the other."""
    import polars as pl

    metric = pl.col("series_id").str.split("/").list.last()
    chosen = (
        forecasts.select("series_id", metric.alias("metric")).unique().sort("series_id").unique("metric", keep="first").sort("series_id")
    )
    return forecasts.filter(pl.col("series_id").is_in(chosen["series_id"].head(SHOWN_SERIES).implode()), pl.col("step").is_in(SHOWN_LEADS))


def next_commands(lake: str, series: str) -> dict[str, str]:
    """Return what to type next, so that it works as it stands: with the folder of the command where that is not on the path."""
    beside = Path(sys.executable).with_name("tidecast")
    shown = beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside
    command = "tidecast" if shutil.which("tidecast") else str(shown)
    return {
        "MLflow UI": f"{command} ui mlflow --lake {lake}",
        "Prefect UI": f"{command} ui prefect --lake {lake}",
        "query": f"{command} query --lake {lake} --series '{series}'",
    }


def _show(forecasts: "pl.DataFrame", skill: Skill, pictures: Sequence[Path], commands: dict[str, str]) -> None:
    from flows.console import stdout
    from pipeline.query.exports import to_table

    lower = f"weighted quantile loss [bold]{skill.wql:.0%}[/bold] lower, mean absolute error [bold]{1 - skill.mae_ratio:.0%}[/bold] lower"
    lines = [
        "",
        f"Against seasonal naive, on origins that training never saw: {lower}.",
        f"The 80 % intervals held {skill.coverage_80:.0%} of what came true.",
        "",
        *(f"{picture.stem:11} {picture}" for picture in pictures),
        *(f"{name:11} {command}" for name, command in commands.items()),
    ]
    out = stdout()
    out.print(to_table(forecasts))
    out.print("\n".join(lines), highlight=False, soft_wrap=True)
