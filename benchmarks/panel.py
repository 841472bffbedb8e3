"""A file as a panel, by the way that every reading takes: ingested, regularised, read back from a throw-away lake."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.clock import SystemClock
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.offline.fill import panel_with_companions
from pipeline.offline.report import read_history
from pipeline.prepare.regularise import regularise
from pipeline.prepare.sequences import Panel
from pipeline.settings import Settings


def panel_of_file(path: Path, series: Sequence[str] | None = None, companions: tuple[str, ...] = ()) -> Panel:
    """Return the series of a file that match any of the patterns, all by default, each with its device's companions.

    Naive stamps are taken as UTC.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(lake=f"{folder}/lake")
        ingest_paths(settings, [path], IngestOptions(time_zone="UTC"), SystemClock())
        regularise(settings, SystemClock())
        return panel_with_companions(*read_history(settings, series, companions), companions)
