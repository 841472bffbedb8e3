"""The flow `backtest`: the engine that runs live, run over past origins and scored beside the baselines."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.tasks import close, publish, settings_of_run
from pipeline.clock import SystemClock
from pipeline.evaluate.backtest import BacktestReport, BacktestRequest
from pipeline.evaluate.backtest import backtest as score_past_origins
from pipeline.settings import Settings

TEST_PERIOD = BacktestRequest()


@task(cache_policy=NO_CACHE)
def score(settings: Settings, request: BacktestRequest) -> BacktestReport:
    """Forecast from every origin asked for and score what came true."""
    return score_past_origins(settings, request, SystemClock())


@flow(name="backtest")
def backtest(request: BacktestRequest = TEST_PERIOD, settings: Settings | None = None) -> BacktestReport:
    """Backtest the champion.

    Args:
        request: the origins, and whether statistical baselines are fitted too.
        settings: by default those of the process the run is in.
    """
    settings = settings_of_run(settings)
    close(settings)
    report = score(settings, request)
    publish("backtest", report.to_markdown(), report_rows(report))
    return report


def report_rows(report: BacktestReport) -> list[dict[str, object]]:
    """Return one row for each model with its overall scores."""
    return [{"model": model, **scores} for model, scores in report.overall.items()]
