"""The pointers to snapshots: one for each model, the last one set, until it is forgotten."""

from pathlib import Path

from pipeline.store.snapshot_pointers import SnapshotPointer, SnapshotPointers


def test_a_pointer_is_the_last_one_set_for_its_model(tmp_path: Path) -> None:
    pointers = SnapshotPointers(tmp_path)
    assert pointers.of("3") is None
    for pointer in (SnapshotPointer("3", "old", 1), SnapshotPointer("3", "new", 9), SnapshotPointer("4", "other", 2)):
        pointers.set(pointer)
    assert pointers.of("3") == SnapshotPointer("3", "new", 9)
    assert pointers.all() == [SnapshotPointer("3", "new", 9), SnapshotPointer("4", "other", 2)]


def test_a_snapshot_that_is_gone_is_forgotten_and_no_other(tmp_path: Path) -> None:
    pointers = SnapshotPointers(tmp_path)
    for pointer in (SnapshotPointer("3", "gone", 1), SnapshotPointer("4", "kept", 2)):
        pointers.set(pointer)
    pointers.forget("gone")
    assert pointers.all() == [SnapshotPointer("4", "kept", 2)]
