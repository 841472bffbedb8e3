"""The verbs that are the stages: `ingest`, `train`, `forecast`, `backtest`; each a flow run, or with `--no-orchestrator` a plain call."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli_ingest_options import takes_ingest_options
from flows.cli_options import (
    AsJson,
    Horizon,
    Lake,
    MaxSeconds,
    NoOrchestrator,
    Series,
    SettingsFile,
    TrainEnd,
    ValidationEnd,
    duration_option,
    given,
    instant_option,
    patterns,
    read_settings,
)
from flows.stages import stages

if TYPE_CHECKING:
    from flows.direct import IngestOutcome
    from pipeline.ingest.ingest import IngestOptions
    from pipeline.settings import Settings


@takes_ingest_options
def ingest(  # noqa: PLR0913 (a verb's options are its signature)
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="CSV, NDJSON or Parquet files, or folders of them.")],
    *,
    options: "IngestOptions",
    sample_interval: Annotated[
        timedelta | None, duration_option("--sample-interval", "Spacing of the grid.  (default: inferred for each series)")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="The files hold what is known ahead, such as tariffs: for covariates.")] = False,
    known_ahead: Annotated[
        timedelta | None, duration_option("--known-ahead", "How long before its instant each value of a plan was known.")
    ] = None,
    devices: Annotated[bool, typer.Option("--devices", help="The files are tables of devices, a column for each attribute.")] = False,
    units: Annotated[bool, typer.Option("--units", help="The files say which unit each device sends, and when.")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Read files into the lake; run again, it changes nothing.

    Columns are recognised by their usual names; the options name those that are not.
    """
    from flows.console import busy, write_json

    settings = read_settings(settings_file, lake, prepare=given(sample_interval=sample_interval))
    if plan + devices + units > 1 or (known_ahead is not None and not plan):
        raise typer.BadParameter("--plan, --devices and --units exclude each other, and --known-ahead requires --plan.")
    if units:
        _ingest_units(settings, paths, as_json=as_json)
        return
    if devices:
        _ingest_devices(settings, paths, options.mapping.device_id, as_json=as_json)
        return
    options = replace(options, is_plan=plan, known_ahead=known_ahead)
    with busy(f"ingesting {', '.join(map(str, paths))}"):
        outcome = stages(no_orchestrator).ingest(paths, options, settings)
    if as_json:
        write_json(outcome.to_dict())
    else:
        _show_ingest(outcome)


def _ingest_devices(settings: "Settings", paths: list[Path], device_id: str | None, *, as_json: bool) -> None:
    """Read attributes of devices; no flow run, as it is one small transaction."""
    from flows.console import stdout, write_json
    from pipeline.ingest.devices import ingest_devices

    report = ingest_devices(settings, paths, device_id)
    if as_json:
        write_json(report.to_dict())
    else:
        stdout().print(f"{report.devices:,} devices have {', '.join(report.attributes)}.", highlight=False)


def _ingest_units(settings: "Settings", paths: list[Path], *, as_json: bool) -> None:
    """Read which unit devices send; no flow run, as it is one small transaction."""
    from flows.console import stdout, write_json
    from pipeline.ingest.unit_intervals import ingest_unit_intervals

    report = ingest_unit_intervals(settings, paths)
    if as_json:
        write_json(report.to_dict())
    else:
        stdout().print(f"{report.intervals:,} intervals of {report.devices:,} devices read; {report.known:,} are known.", highlight=False)


def _show_ingest(outcome: "IngestOutcome") -> None:
    from flows.console import note, show_counts, stdout, table

    out, done = stdout(), outcome.ingested
    counts = ("read", "accepted", "duplicate", "late", "quarantined", *(("empty",) if done.empty else ()))
    show_counts({name: getattr(done, name) for name in counts})
    for sentence in done.notes:
        note(sentence)
    if done.reasons:
        out.print(table([{"quarantined because": reason, "rows": rows} for reason, rows in done.reasons.items()]))


def train(  # noqa: PLR0913 (a verb's options are its signature)
    *,
    series: Series = None,
    horizon: Horizon = None,
    train_end: TrainEnd = None,
    validation_end: ValidationEnd = None,
    promote: Annotated[bool, typer.Option("--promote/--no-promote", help="Make the model the champion, which forecasts.")] = True,
    max_seconds: MaxSeconds = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides everything that is random.")] = None,
    num_layers: Annotated[int | None, typer.Option(min=1, help="Depth of the stack.")] = None,
    hidden_size: Annotated[int | None, typer.Option(min=1, help="Width of every layer.")] = None,
    cell: Annotated[Literal["lstm", "gru"] | None, typer.Option(help="Recurrent cell.")] = None,
    wiring: Annotated[Literal["residual", "plain"] | None, typer.Option(help="plain is the textbook stack.")] = None,
    past_covariate: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="Read another metric of the same device too; repeatable.")
    ] = None,
    future_covariate: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="Read what is planned of a metric of the device (ingest --plan); repeatable.")
    ] = None,
    static_covariate: Annotated[
        list[str] | None, typer.Option(metavar="ATTRIBUTE", help="Read an attribute of the device (ingest --devices); repeatable.")
    ] = None,
    bidirectional: Annotated[bool, typer.Option("--bidirectional", help="Refused, with the reason: it would read the future.")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Train a causal stacked LSTM on the lake's observations and register it."""
    from flows.console import show_markdown, watch_training, write_json
    from models.config import BIDIRECTIONAL_REFUSED
    from pipeline.errors import CausalityError

    if bidirectional:
        raise CausalityError(BIDIRECTIONAL_REFUSED)
    from pipeline.train.train import TrainRequest  # after the refusal: it takes Lightning's seconds

    network = given(num_layers=num_layers, hidden_size=hidden_size, cell=cell, wiring=wiring)
    covariates = given(past=past_covariate or None, future=future_covariate or None, static=static_covariate or None)
    section = given(horizon=horizon, max_seconds=max_seconds, seed=seed, network=network, covariates=covariates)
    settings = read_settings(settings_file, lake, train=section)
    request = TrainRequest(series=patterns(series), train_end=train_end, validation_end=validation_end, promote=promote)
    with watch_training(settings.train.max_seconds):
        report = stages(no_orchestrator).train(request, settings)
    if as_json:
        write_json(report.to_dict())
    else:
        show_markdown(report.to_markdown())


def forecast(
    origins: Annotated[
        int, typer.Option(min=1, help="How many of the newest ticks to forecast from for a series that is new to the model.")
    ] = 1,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until SIGTERM or Ctrl-C, without Prefect; with --json one line for each tick.")
    ] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Advance every series through the ticks that have closed and write forecasts; run again, it does nothing."""
    from flows.console import busy, stdout, write_json

    settings = read_settings(settings_file, lake)
    if follow:
        from flows.follow import follow as follow_lake

        follow_lake(settings, origins, as_json=as_json)
        return
    with busy("forecasting"):
        report = stages(no_orchestrator).forecast(origins, settings)
    if as_json:
        write_json(report.to_dict())
        return
    stdout().print(
        f"{report.rows_written:,} forecasts written for {report.series:,} series by model {report.model_version}.", highlight=False
    )


def backtest(
    start: Annotated[datetime | None, instant_option("--start", "First origin.  (default: the first that training did not see)")] = None,
    end: Annotated[datetime | None, instant_option("--end", "Last origin.  (default: the last that has come true)")] = None,
    stride: Annotated[int, typer.Option(min=1, help="Take every n-th origin.")] = 1,
    statistical: Annotated[bool, typer.Option("--statistical", help="Fit a statistical baseline too (the extra `stats`).")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Forecast past origins with the engine that runs live, and score it beside the baselines."""
    from flows.console import busy, show_markdown, write_json
    from pipeline.evaluate.backtest import BacktestRequest

    settings = read_settings(settings_file, lake)
    request = BacktestRequest(start=start, end=end, stride=stride, statistical=statistical)
    with busy("backtesting"):
        report = stages(no_orchestrator).backtest(request, settings)
    if as_json:
        write_json(report.to_dict())
    else:
        show_markdown(report.to_markdown())
