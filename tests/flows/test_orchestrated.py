"""What a moment's look shows to be impossible is refused before Prefect starts its server, which takes ten seconds and more."""

import sys
from datetime import datetime
from pathlib import Path

import pytest

from flows import orchestrated
from pipeline.errors import DataError, ModelError, SettingsError, StoreError, TidecastError
from pipeline.evaluate.backtest import BacktestRequest
from pipeline.ingest.ingest import IngestOptions
from pipeline.settings import Settings
from pipeline.study.plan import DepthRequest
from pipeline.study.tune import TuneRequest
from pipeline.train.train import TrainRequest
from tests.lakes import HOUR, START

NAIVE = datetime(2026, 3, 2)  # noqa: DTZ001 (what is refused)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A place without a lake, where no flow can be imported."""
    for flow in ("ingest", "train", "forecast", "backtest", "tune", "study"):
        monkeypatch.setitem(sys.modules, f"flows.{flow}", None)
    (tmp_path / "naive.csv").write_text("device_id,ts,flow\nnorth,2026-01-01 00:00:00,1\n")
    return Settings(lake=str(tmp_path / "lake"))


@pytest.mark.parametrize(
    ("file", "options", "sentence"),
    [
        ("nothing.csv", IngestOptions(), "requires a file, a folder or a pattern that exists"),
        ("naive.csv", IngestOptions(), "requires stamps with an offset, or a declared zone; got naive ones such as '2026-01-01 00:00:00'"),
        ("naive.csv", IngestOptions(is_plan=True), "requires stamps with an offset, or a declared zone"),
        ("naive.csv", IngestOptions(time_zone="Europe/Berlim"), "--time-zone requires an IANA zone"),
    ],
)
def test_files_that_cannot_be_read_start_no_flow(
    settings: Settings, tmp_path: Path, file: str, options: IngestOptions, sentence: str
) -> None:
    """Shown to fail by leaving the look at the files to the flow: it cannot be imported here."""
    with pytest.raises((DataError, SettingsError), match=sentence):
        orchestrated.ingest([tmp_path / file], options, settings)
    assert not Path(settings.lake).exists()


def test_without_a_lake_or_a_champion_no_flow_starts(settings: Settings) -> None:
    for stage, request in (("train", TrainRequest()), ("tune", TuneRequest()), ("study_depth", DepthRequest())):
        with pytest.raises(StoreError, match="requires the table observations"):
            getattr(orchestrated, stage)(request, settings)
    for stage, request in (("forecast", 1), ("backtest", BacktestRequest())):
        with pytest.raises(ModelError, match="Run `tidecast train` first"):
            getattr(orchestrated, stage)(request, settings)


@pytest.mark.parametrize(
    ("request_of", "instants", "sentence"),
    [
        (TrainRequest, {"train_end": NAIVE}, "A training requires instants with a time zone; got train_end=2026-03-02 00:00:00"),
        (TuneRequest, {"validation_end": NAIVE}, "A search requires instants with a time zone"),
        (DepthRequest, {"train_end": NAIVE}, "A study of depth requires instants with a time zone"),
        (BacktestRequest, {"end": NAIVE}, "A backtest requires instants with a time zone"),
        (TrainRequest, {"train_end": START + HOUR, "validation_end": START}, "requires train_end before validation_end"),
        (BacktestRequest, {"start": START + HOUR, "end": START}, "A backtest requires a start before its end"),
    ],
)
def test_a_request_with_impossible_instants_cannot_be_made(request_of: type, instants: dict[str, datetime], sentence: str) -> None:
    with pytest.raises(TidecastError, match=sentence):
        request_of(**instants)
