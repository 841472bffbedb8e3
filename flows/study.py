"""The flow `study-depth`: does depth help, after each depth has been tuned on its own?"""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.console import report_step
from flows.tasks import close, publish, settings_of_run
from pipeline.clock import SystemClock
from pipeline.settings import Settings
from pipeline.study.depth import study_depth as compare_depths
from pipeline.study.depth_report import DepthReport
from pipeline.study.plan import DepthRequest

DEFAULT_BUDGET = DepthRequest()


@task(cache_policy=NO_CACHE)  # no retries: the next run goes on where this one failed
def search_and_compare(settings: Settings, request: DepthRequest) -> DepthReport:
    """Tune every cell, train the finalists with fresh seeds, and compare them."""
    return compare_depths(settings, request, SystemClock(), report_step)


@flow(name="study-depth")
def study_depth(request: DepthRequest = DEFAULT_BUDGET, settings: Settings | None = None) -> DepthReport:
    """Compare depths on the lake's observations.

    Args:
        request: which series, and the budget.
        settings: of every training; by default those of the process the run is in.
    """
    settings = settings_of_run(settings)
    close(settings)
    report = search_and_compare(settings, request)
    publish("study-depth", report.to_markdown(), [{"cell": row.cell.name, "crps": row.crps, "void": row.is_void} for row in report.cells])
    return report
