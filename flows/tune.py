"""The flow `tune`: a search for good settings, resumed where it was killed."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.console import report_step
from flows.tasks import close, publish, settings_of_run
from pipeline.clock import SystemClock
from pipeline.settings import Settings
from pipeline.study.tune import TuneReport, TuneRequest
from pipeline.study.tune import tune as search_settings

TWENTY_TRIALS = TuneRequest()


@task(cache_policy=NO_CACHE)  # no retries: the next run goes on where this one failed
def search(settings: Settings, request: TuneRequest) -> TuneReport:
    """Run the trials that are missing and find the best."""
    return search_settings(settings, request, SystemClock(), report_step)


@flow(name="tune")
def tune(request: TuneRequest = TWENTY_TRIALS, settings: Settings | None = None) -> TuneReport:
    """Search for settings on the lake's training and validation periods.

    Args:
        request: which series and how many trials.
        settings: those to better; by default those of the process the run is in.
    """
    settings = settings_of_run(settings)
    close(settings)
    report = search(settings, request)
    publish("tune", report.to_markdown(), [{"knob": name, "value": value} for name, value in report.best.items()])
    return report
