"""Small studies for tests: an hourly panel, brief trainings, and searches over them."""

from pathlib import Path

from models.config import NetworkConfig
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.settings import TrainSettings
from pipeline.study.knobs import Range
from pipeline.study.search import Search
from tests.lakes import TestLake, hourly_readings
from tests.laws.panels import HOUR, START, daily_cycle, hourly_panel

BRIEF = TrainSettings(
    horizon=4,
    max_epochs=2,
    highway_first=False,
    segment_length=16,
    burn_in=8,
    batch_size=8,
    seasons=(24,),
    context_length=24,
    network=NetworkConfig(hidden_size=6, num_layers=1),
)
SPLIT = Split(START + 150 * HOUR, START + 200 * HOUR)
RATE = Range("learning_rate", 1e-4, 1e-2, log=True)


def small_panel() -> Panel:
    """Return 260 hours of two series; a fifth of them lies after the validation period."""
    return hourly_panel(daily_cycle(260, 2))


def small_lake(folder: Path, num_hours: int = 300, settings: TrainSettings = BRIEF) -> TestLake:
    """Return a lake with some hours of two series, set to train briefly."""
    lake = TestLake.at(folder)
    lake.settings = lake.settings.model_copy(update={"train": settings})
    lake.ingest(hourly_readings(num_hours))
    return lake


def small_search(folder: Path, **changed: object) -> Search:
    """Return a search for a learning rate."""
    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, object] = {
        "folder": folder,
        "name": "small",
        "panel": small_panel(),
        "split": SPLIT,
        "settings": BRIEF,
        "knobs": (RATE,),
        "spread_trials": 2,
        "warm_up_epochs": 1,
    }
    return Search(**{**given, **changed})
