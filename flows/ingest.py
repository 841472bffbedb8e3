"""The flow `ingest`: files become readings, readings become observations; run again, it changes nothing."""

from pathlib import Path

from prefect import flow

from flows.console import jsonable
from flows.direct import IngestOutcome, read_files
from flows.tasks import publish, retried_task, settings_of_run
from pipeline.clock import SystemClock
from pipeline.ingest.ingest import IngestOptions, IngestReport
from pipeline.prepare.regularise import RegulariseReport, regularise
from pipeline.settings import Settings

EVERY_DEFAULT = IngestOptions()


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


@flow(name="ingest-landing")
def ingest_landing(folder: Path, settings: Settings | None = None) -> IngestOutcome | None:
    """Ingest whatever lies in a landing folder; that nothing does is no fault.

    Args:
        folder: where files are dropped; they stay, and count as duplicates from then on.
        settings: by default those of the process the run is in.
    """
    has_files = any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*"))
    return ingest.fn([folder], EVERY_DEFAULT, settings) if has_files else None


def _markdown(outcome: IngestOutcome) -> str:
    lines = [f"| {name} | {jsonable(value)} |" for name, value in outcome.to_dict().items() if isinstance(value, int)]
    return "\n".join(["# Ingest", "", "| readings | rows |", "|---|---:|", *lines])
