"""Full disks under a lake and its state folder, with real processes."""

import shutil
from pathlib import Path

import pytest

from tests.faults.full_disk import full_disks
from tests.faults.member import ROOT
from tests.faults.small_disk import SmallDisk


def test_a_full_disk_under_lake_and_state_loses_and_repeats_nothing_and_is_left_by_itself(tmp_path):
    outcome = full_disks(tmp_path, hold_s=1, rounds=[("lake", "state")], is_followed=False)
    assert outcome.is_whole, outcome
    assert outcome.kills == 1
    assert not any(Path(tmp_path, name).is_mount() for name in ("lake", "state"))


def test_a_disk_that_cannot_be_mounted_is_stood_in_for_by_refused_writes(tmp_path):
    outcome = full_disks(tmp_path, hold_s=1, rounds=[("lake", "state")], is_followed=False, is_real=False)
    assert outcome.is_whole, outcome
    assert outcome.facts.startswith("no disk could be mounted")


def test_a_disk_is_unmounted_after_a_failure_and_its_files_are_kept(tmp_path):
    disk = SmallDisk(tmp_path / "disk")
    with pytest.raises(IsADirectoryError), disk:
        shutil.copytree(ROOT / "tests/faults", disk.folder / "evidence").write_text("a folder takes no text")
    assert not disk.folder.is_mount()
    kept = tmp_path / ("disk-kept" if disk.is_real else "disk")
    assert (kept / "evidence/__init__.py").exists()
