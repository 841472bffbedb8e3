"""The rebuild of a new champion: it ends with its follower, whatever ends that, and not by a Ctrl-C that is meant for it."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.forecast.rolling import forecast
from pipeline.forecast.succession import Succession
from pipeline.store.snapshot_pointers import SnapshotPointers
from pipeline.tracking.registry import champion
from tests.lakes import TestLake, hourly_readings, random_weights

# A follower that is killed as soon as its rebuild has begun.
KILLED = """
import os, signal
from multiprocessing import get_context
from pipeline.forecast.succession import rebuild

get_context("spawn").Process(target=rebuild, args=({settings!r}, "1", {place!r}), daemon=True).start()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def lake(tmp_path: Path) -> TestLake:
    """A lake that was forecast, and a new champion."""
    lake = TestLake.at(tmp_path)
    lake.register(random_weights())
    lake.ingest(hourly_readings(40))
    forecast(lake.settings, lake.clock)
    return lake


def test_a_rebuild_ends_with_its_follower_even_by_kill_9(lake: TestLake, tmp_path: Path) -> None:
    """Shown to fail by a daemonic process alone, which ends with a clean exit only."""
    script = KILLED.format(settings=lake.settings.model_dump(mode="json"), place=str(tmp_path / "rebuilt.safetensors"))
    # With its output captured, its child is waited for too.
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=300, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "rebuilt.safetensors").exists()


def test_a_rebuild_survives_a_ctrl_c_and_a_file_of_another_model_is_refused(lake: TestLake, caplog: pytest.LogCaptureFixture) -> None:
    """Shown to fail by starting it with Ctrl-C let through, and by taking over whatever state lies there."""
    folder, old = SnapshotPointers(lake.settings.state_dir).folder, champion(lake.settings)
    version = lake.register(random_weights(seed=1))
    succession = Succession(lake.settings, lake.clock)
    succession.prepare(version)
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    succession.wait(300)
    assert succession.is_ready(version)
    assert not succession.is_ready("1")
    assert succession.successor(None) is not None
    pointer = SnapshotPointers(lake.settings.state_dir).of(old.identity)
    assert pointer is not None
    shutil.copy(folder / pointer.name, folder / "rebuilt.safetensors")
    assert succession.successor(None) is None
    assert f"its rebuilt state is of model {old.identity}" in caplog.text


def test_a_file_that_cannot_be_deleted_hides_nothing_that_ends_the_follower(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Shown to fail by a `stop` that raises, which it did at the end of a follower, in place of what ended it."""
    lake = TestLake.at(tmp_path)
    (SnapshotPointers(lake.settings.state_dir).folder / "rebuilt.safetensors").mkdir(parents=True)
    Succession(lake.settings, lake.clock).stop()
    assert "rebuilt state not deleted" in caplog.text
