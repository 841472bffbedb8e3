"""The flow `train`: a model is fitted, registered with its MLflow run, and, where asked, made the champion."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.console import report_epoch
from flows.tasks import close, publish, settings_of_run
from pipeline.clock import SystemClock
from pipeline.settings import Settings
from pipeline.train.train import TrainReport, TrainRequest
from pipeline.train.train import train as train_model

EVERY_SERIES = TrainRequest()


@task(cache_policy=NO_CACHE)  # no retries: a training that failed would fail again, minutes later
def fit_and_register(settings: Settings, request: TrainRequest) -> TrainReport:
    """Fit a model, log the run and register the version."""
    return train_model(settings, request, SystemClock(), report_epoch)


@flow(name="train")
def train(request: TrainRequest = EVERY_SERIES, settings: Settings | None = None) -> TrainReport:
    """Train a model on the lake's observations.

    Args:
        request: which series, up to when, and whether the model becomes the champion.
        settings: by default those of the process the run is in.
    """
    settings = settings_of_run(settings)
    close(settings)
    report = fit_and_register(settings, request)
    publish("train", report.to_markdown(), [{"metric": name, "value": value} for name, value in report.metrics.items()])
    return report
