"""The verbs that train many times: `tune`, a search for good settings, and `study depth`, which asks whether stacking helps."""

from typing import TYPE_CHECKING, Annotated

import typer

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
    given,
    patterns,
    read_settings,
)
from flows.stages import stages

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.study.tune import TuneReport, TuneRequest

study_app = typer.Typer(help="Questions that take many trainings to answer.", no_args_is_help=True)

Workers = Annotated[int, typer.Option(min=1, help="Processes of one thread that train side by side.")]


def tune(  # noqa: PLR0913 (a verb's options are its signature)
    *,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of an earlier command included.")] = 20,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no trial after this long.")] = None,
    workers: Workers = 2,
    series: Series = None,
    horizon: Horizon = None,
    train_end: TrainEnd = None,
    validation_end: ValidationEnd = None,
    max_seconds: MaxSeconds = None,
    train: Annotated[bool, typer.Option("--train", help="Train, register and promote a model with the best settings.")] = False,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Search for better training settings; stopped or killed, the same command goes on.

    It looks at the training and validation periods alone, and prints what to paste into tidecast.toml.
    """
    from flows.console import show_markdown, watch_steps, write_json
    from pipeline.study.tune import TuneRequest

    settings = read_settings(settings_file, lake, train=given(horizon=horizon, max_seconds=max_seconds))
    request = TuneRequest(
        series=patterns(series), train_end=train_end, validation_end=validation_end, trials=trials, minutes=minutes, workers=workers
    )
    with watch_steps("reading the lake"):
        report = stages(no_orchestrator).tune(request, settings)
    trained = _train(report, request, settings, no_orchestrator) if train else None
    if as_json:
        write_json({**report.to_dict(), "trained": trained})
        return
    show_markdown(report.to_markdown())


def _train(report: "TuneReport", request: "TuneRequest", settings: "Settings", no_orchestrator: bool) -> dict[str, object]:
    """Train with what was found, on the same borders, and say what came of it on stderr."""
    from flows.console import note, watch_training
    from pipeline.train.train import TrainRequest

    tuned = report.tuned(settings)
    asked = TrainRequest(series=request.series, train_end=report.train_end, validation_end=report.validation_end)
    with watch_training(tuned.train.max_seconds):
        trained = stages(no_orchestrator).train(asked, tuned)
    note(f"trained model version {trained.model_version}, MLflow run {trained.run_id}; it is the champion now")
    return trained.to_dict()


@study_app.command("depth")
def study_depth(  # noqa: PLR0913 (a verb's options are its signature)
    *,
    trials: Annotated[int, typer.Option(min=2, help="Trials of each depth and wiring; half as many more where a range is widened.")] = 5,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each finalist, with seeds no choice has seen.")] = 4,
    minutes: Annotated[float, typer.Option(min=1, help="Time for the whole; decides the epochs of every training.")] = 28.0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs of every training.  (default: what the minutes allow)")] = None,
    workers: Workers = 2,
    series: Series = None,
    horizon: Horizon = None,
    train_end: TrainEnd = None,
    validation_end: ValidationEnd = None,
    lake: Lake = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
    no_orchestrator: NoOrchestrator = False,
) -> None:
    """Compare depths 1, 2, 3, 4 and 6, plain and residual, each tuned on its own.

    All get the same parameters, trials and epochs; where the best learning rate lies at an end of its range, the range is widened
    and gets extra trials. Stopped or killed, the same command goes on.
    """
    from flows.console import note, show_markdown, watch_steps, write_json
    from pipeline.study.plan import DepthRequest

    settings = read_settings(settings_file, lake, train=given(horizon=horizon))
    request = DepthRequest(
        series=patterns(series),
        train_end=train_end,
        validation_end=validation_end,
        trials=trials,
        seeds=seeds,
        minutes=minutes,
        epochs=epochs,
        workers=workers,
    )
    with watch_steps("timing two epochs of each depth"):
        report = stages(no_orchestrator).study_depth(request, settings)
    if as_json:
        write_json(report.to_dict())
        return
    show_markdown(report.to_markdown())
    note(f"report and pictures in {report.folder}")
