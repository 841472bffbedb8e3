"""A landing folder: each file once, however often, under whatever name and in whatever state it is seen, and after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.clock import ReplayClock
from pipeline.errors import SettingsError, StoreError
from pipeline.ingest.ingest import IngestOptions
from pipeline.listen import landing as landing_module
from pipeline.listen.landing import Landing, LandingReport, LandingSource, land
from pipeline.schemas import Readings
from pipeline.settings import ListenSettings, Settings
from pipeline.store.lake import Lake, read
from tests.waiting import until

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SETTLE = timedelta(seconds=5)
HEADER = "ts,device_id,metric,value\n"
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "listen", "files"]


def rows(*hours: int, device: str = "pump-1") -> str:
    return "".join(f"2026-05-01T{hour:02}:00:00Z,{device},flow,{hour}\n" for hour in hours)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"), listen=ListenSettings(settle=timedelta(0)))


def take(settings: Settings, folder: Path, options: IngestOptions | None = None) -> LandingReport:
    """Take what has landed, as a run of its own."""
    return land(settings, ReplayClock(NOW), folder, options or IngestOptions())


def stored(settings: Settings) -> list[tuple[str, float]]:
    """Return device and value of every reading in the lake."""
    return sorted(read(Lake(settings.lake).scan(Readings).select("device_id", "value")).rows())


def test_a_file_is_read_once_however_often_it_is_seen(settings: Settings, folder: Path) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "a.csv").write_text(HEADER + rows(0, 1))
    first, second = take(settings, folder), take(settings, folder)
    assert (first.files, first.read, first.accepted) == (1, 2, 2)
    assert second == LandingReport(failed={})


def test_folders_that_go_while_it_looks_do_not_end_it(settings: Settings, folder: Path) -> None:
    """Shown to fail by `rglob`: a quarter of the looks raised, and the listener ended with the first."""
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(20):
                (folder / f"{number}" / "below" / "it").mkdir(parents=True)
            for number in range(20):
                shutil.rmtree(folder / f"{number}")

    others = threading.Thread(target=come_and_go, daemon=True)
    others.start()
    with closing(Landing(settings, ReplayClock(NOW), folder, IngestOptions())) as landing:
        for _ in range(300):
            landing.look()
    ended.set()
    others.join()


def test_the_same_content_under_another_name_is_counted_and_not_read(settings: Settings, folder: Path) -> None:
    (folder / "a.csv").write_text(HEADER + rows(0, 1))
    take(settings, folder)
    (folder / "a.csv").rename(folder / "b.csv")
    os.utime(folder / "b.csv")
    again = take(settings, folder)
    assert (again.repeated, again.files, again.read) == (1, 0, 0)


def test_the_same_numbers_of_two_devices_are_both_read_where_only_the_name_tells_them_apart(settings: Settings, folder: Path) -> None:
    """Shown to fail by comparing contents alone."""
    content = "ts,flow\n2026-05-01T00:00:00Z,1\n"
    for name in ("pump-1.csv", "pump-2.csv"):
        (folder / name).write_text(content)
    assert take(settings, folder).files == 2
    assert stored(settings) == [("pump-1", 1.0), ("pump-2", 1.0)]
    (folder / "again").mkdir()
    (folder / "again" / "pump-1.csv").write_text(content)
    assert take(settings, folder).repeated == 1


def test_a_file_that_was_appended_to_is_read_again_and_its_old_rows_are_duplicates(settings: Settings, folder: Path) -> None:
    path = folder / "a.csv"
    path.write_text(HEADER + rows(0, 1))
    take(settings, folder)
    path.write_text(HEADER + rows(0, 1, 2))
    grown = take(settings, folder)
    assert (grown.read, grown.duplicate, grown.accepted) == (3, 2, 1)
    assert len(stored(settings)) == 3


def test_a_bad_file_is_recorded_and_stops_no_other_and_waits_for_a_change(settings: Settings, folder: Path) -> None:
    (folder / "a.csv").write_text("nothing,of,use\n1,2,3\n")
    (folder / "b.parquet").write_bytes(b"PAR1 but no more")
    (folder / "c.txt").write_text("a note")
    (folder / "d.csv").write_text("ts,knowledge_time,value\n2026-05-01T00:00:00Z,2026-05-02T00:00:00Z,1\n")
    (folder / "z.csv").write_text(HEADER + rows(0))
    report = take(settings, folder)
    assert (report.files, report.accepted) == (1, 1)
    assert [Path(path).name for path in report.failed] == ["a.csv", "b.parquet", "c.txt", "d.csv"]
    assert take(settings, folder) == LandingReport(failed={})
    (folder / "a.csv").write_text(HEADER + rows(1))
    assert take(settings, folder).accepted == 1


def test_a_name_that_is_no_text_stops_no_other(settings: Settings, folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/\xff.csv")).write_text(HEADER + rows(0))
    (folder / "z.csv").write_text(HEADER + rows(1))
    report = take(settings, folder)
    assert (report.files, list(report.failed)) == (1, [str(folder / "\\xff.csv")])
    assert take(settings, folder) == LandingReport(failed={})


@pytest.mark.parametrize("name", ["a.csv.tmp", "a.csv.PART", ".a.csv", ".hidden/a.csv"])
def test_a_temporary_name_is_left_alone_until_it_is_final(settings: Settings, folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + rows(0))
    assert take(settings, folder) == LandingReport(failed={})
    path.rename(folder / "a.csv")
    assert take(settings, folder).accepted == 1


@pytest.fixture
def settling(tmp_path: Path, folder: Path) -> Iterator[tuple[Landing, ReplayClock]]:
    """A folder whose files settle for five seconds, by a clock that is moved by hand."""
    clock = ReplayClock(NOW)
    settings = Settings(lake=str(tmp_path / "lake"), listen=ListenSettings(settle=SETTLE))
    with closing(Landing(settings, clock, folder, IngestOptions())) as landing:
        yield landing, clock


def test_a_file_is_taken_when_it_has_stood_still(settling: tuple[Landing, ReplayClock], folder: Path) -> None:
    landing, clock = settling
    (folder / "a.csv").write_text(HEADER)
    landing.look()
    clock.advance(SETTLE - timedelta(milliseconds=1))
    (folder / "a.csv").write_text(HEADER + rows(0))
    landing.look()
    clock.advance(SETTLE - timedelta(milliseconds=1))
    landing.look()
    assert (landing.report().files, landing.num_settling) == (0, 1)
    clock.advance(timedelta(milliseconds=1))
    landing.look()
    assert (landing.report().accepted, landing.num_settling) == (1, 0)


def test_a_clock_that_is_set_back_keeps_no_file_waiting(settling: tuple[Landing, ReplayClock], folder: Path) -> None:
    landing, clock = settling
    (folder / "a.csv").write_text(HEADER + rows(0))
    landing.look()
    clock.advance(-timedelta(hours=1))
    landing.look()
    clock.advance(SETTLE)
    landing.look()
    assert landing.report().accepted == 1


def test_content_that_was_replaced_before_it_was_read_does_not_count_as_taken(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown to fail by recording a file that has changed since its digest was taken."""
    path, ingest_paths = folder / "a.csv", landing_module.ingest_paths
    path.write_text(HEADER + rows(0, 1))

    def replace_before(*given: object) -> object:
        path.write_text(HEADER + rows(2))
        return ingest_paths(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(landing_module, "ingest_paths", replace_before)
    assert take(settings, folder).accepted == 1
    monkeypatch.undo()
    (folder / "b.csv").write_text(HEADER + rows(0, 1))
    assert take(settings, folder).accepted == 2


DIES_BEFORE_IT_RECORDS = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pipeline.clock import ReplayClock
from pipeline.ingest.ingest import IngestOptions
from pipeline.listen.landing import land
from pipeline.listen.landing_ledger import LandingLedger
from pipeline.settings import ListenSettings, Settings

LandingLedger.record_taken = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
settings = Settings(lake=sys.argv[1], listen=ListenSettings(settle=0))
land(settings, ReplayClock(datetime(2026, 6, 1, 12, tzinfo=UTC)), Path(sys.argv[2]), IngestOptions())
"""


def test_a_kill_between_ingest_and_record_repeats_nothing(settings: Settings, folder: Path) -> None:
    (folder / "a.csv").write_text(HEADER + rows(0, 1))
    done = subprocess.run([sys.executable, "-c", DIES_BEFORE_IT_RECORDS, settings.lake, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    again = take(settings, folder)
    assert (again.files, again.duplicate, again.accepted) == (1, 2, 0)
    assert len(stored(settings)) == 2


def test_the_verb_takes_what_lands_and_ends_when_told(tmp_path: Path, settings: Settings, folder: Path) -> None:
    command = [*COMMAND, str(folder), "--json", "--device", "pump-9", "--lake", settings.lake]
    environment = {**os.environ, "TIDECAST_LISTEN__SETTLE": "PT0S"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as process:
        (folder / "a.csv").write_text("ts,flow\n2026-05-01T00:00:00Z,1\n")
        assert process.stderr is not None
        assert any("took file=" in line for line in process.stderr)  # stops at the first
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    assert json.loads(out)["counts"]["accepted"] == 1
    assert stored(settings) == [("pump-9", 1.0)]


def test_a_lake_that_cannot_be_written_is_tried_again(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults, ingest_paths = [StoreError("no room"), StoreError("no room")], landing_module.ingest_paths

    def fail_twice(*given: object) -> object:
        if faults:
            raise faults.pop()
        return ingest_paths(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(landing_module, "ingest_paths", fail_twice)
    (folder / "a.csv").write_text(HEADER + rows(0))
    source = LandingSource(settings, ReplayClock(NOW), folder, IngestOptions(), threading.Event())
    source.start()
    until(lambda: source.counts()["files"] == 1)
    source.stop()
    assert (source.counts()["accepted"], source.counts()["failed"]) == (1, 0)


def test_what_cannot_go_on_says_why_when_it_is_stopped(settings: Settings, folder: Path) -> None:
    (folder / "a.csv").write_text("ts,flow\n2026-05-01T00:00:00,1\n")
    stop = threading.Event()
    source = LandingSource(settings, ReplayClock(NOW), folder, IngestOptions(time_zone="Nowhere/Land"), stop)
    source.start()
    assert stop.wait(30)
    with pytest.raises(SettingsError, match="Nowhere/Land"):
        source.stop()


def test_a_lake_inside_the_folder_is_no_file_that_landed(folder: Path) -> None:
    (folder / "a.csv").write_text(HEADER + rows(0))
    inside = Settings(lake=str(folder / "lake"), state=str(folder / "state"), listen=ListenSettings(settle=timedelta(0)))
    assert take(inside, folder).files == 1
    assert take(inside, folder) == LandingReport(failed={})


def test_a_folder_that_is_none_is_refused(settings: Settings, folder: Path) -> None:
    with pytest.raises(SettingsError, match="requires a folder"):
        take(settings, folder / "missing")
