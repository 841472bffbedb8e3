"""The flow `ingest`: files become readings, readings become observations; run again, it changes nothing."""

from pathlib import Path

from prefect import flow

from flows.console import jsonable
from flows.direct import IngestOutcome, read_files
from flows.tasks import publish, retried_task, settings_of_run
from pipeline.clock import SystemClock
from pipeline.ingest.ingest import IngestOptions, IngestReport
from pipeline.listen.landing import LandingReport, land
from pipeline.prepare.regularise import RegulariseReport, regularise
from pipeline.settings import Settings

EVERY_DEFAULT = IngestOptions()
NOTHING_LANDED = LandingReport(failed={})


@retried_task
def ingest_files(settings: Settings, paths: list[Path], options: IngestOptions) -> IngestReport:
    """Read files into the table of readings, or into that of plans."""
    return read_files(paths, options, settings)


@retried_task
def regularise_readings(settings: Settings) -> RegulariseReport:
    """Bring the observations up to the readings."""
    return regularise(settings, SystemClock())


@flow(name="ingest")
def ingest(paths: list[Path], options: IngestOptions = EVERY_DEFAULT, settings: Settings | None = None) -> IngestOutcome:
    """Ingest files and folders, then bring the observations up to them.

    Args:
        paths: files, or folders of files.
        options: how columns are named and times are read.
        settings: by default those of the process the run is in.
    """
    settings = settings_of_run(settings)
    ingested = ingest_files(settings, paths, options)
    outcome = IngestOutcome(ingested, regularise_readings(settings))
    publish("ingest", _markdown(outcome), [{"reason": reason, "rows": rows} for reason, rows in ingested.reasons.items()])
    return outcome


@retried_task
def take_landed(settings: Settings, folder: Path) -> LandingReport:
    """Take the files that have come to a landing folder."""
    return land(settings, SystemClock(), folder, EVERY_DEFAULT)


@flow(name="ingest-landing")
def ingest_landing(folder: Path, settings: Settings | None = None) -> LandingReport | None:
    """Ingest whatever has come to a landing folder, each file once; that nothing has is no fault.

    Args:
        folder: where files are dropped; they stay.
        settings: by default those of the process the run is in.
    """
    settings = settings_of_run(settings)
    landed = take_landed(settings, folder)
    if landed == NOTHING_LANDED:
        return None
    regularise_readings(settings)
    publish("ingest", _markdown(landed), [{"file": path, "unreadable because": error} for path, error in landed.failed.items()])
    return landed


def _markdown(outcome: IngestOutcome | LandingReport) -> str:
    lines = [f"| {name} | {jsonable(value)} |" for name, value in outcome.to_dict().items() if isinstance(value, int)]
    return "\n".join(["# Ingest", "", "| what | number |", "|---|---:|", *lines])
