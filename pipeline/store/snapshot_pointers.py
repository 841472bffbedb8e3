"""Where the newest good state of each model is: the pointers to snapshots, in the catalog's file.

Called by `pipeline.forecast`, which moves a pointer once its snapshot is on disk, and by `pipeline.doctor`.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.store.catalog_file import transaction

SELECT = "SELECT model_version, path, observations_version FROM snapshots"
UPSERT = """
    INSERT INTO snapshots (model_version, path, observations_version) VALUES (?, ?, ?)
    ON CONFLICT (model_version) DO UPDATE SET path = excluded.path, observations_version = excluded.observations_version
"""


@dataclass(frozen=True)
class SnapshotPointer:
    """Where the newest good state of a model is, and how far into the observations it has read.

    Attributes:
        model: `LoadedModel.identity` of the model whose state it is.
        name: file name in the folder of snapshots, without a path, because lakes are moved.
        observations_version: Delta version of `observations` that the state has consumed.
    """

    model: str
    name: str
    observations_version: int


@dataclass(frozen=True)
class SnapshotPointers:
    """The pointers in the catalog's file.

    Attributes:
        state_dir: the state folder.
    """

    state_dir: Path

    @property
    def folder(self) -> Path:
        """Where the snapshots are."""
        return self.state_dir / "snapshots"

    def of(self, model: str) -> SnapshotPointer | None:
        """Return where the state of one model is; None before its first snapshot."""
        with transaction(self.state_dir) as connection:
            row = connection.execute(f"{SELECT} WHERE model_version = ?", (model,)).fetchone()
        return None if row is None else SnapshotPointer(*row)

    def all(self) -> list[SnapshotPointer]:
        """Return where the states of all models are."""
        with transaction(self.state_dir) as connection:
            rows = connection.execute(f"{SELECT} ORDER BY model_version").fetchall()
        return [SnapshotPointer(*row) for row in rows]

    def set(self, pointer: SnapshotPointer) -> None:
        """Point to a snapshot that is already fsynced; the state and the input position move together or not at all."""
        with transaction(self.state_dir) as connection:
            connection.execute(UPSERT, (pointer.model, pointer.name, pointer.observations_version))

    def forget(self, name: str) -> None:
        """Forget the pointer to a snapshot that is gone: the state is rebuilt from observations."""
        with transaction(self.state_dir) as connection:
            connection.execute("DELETE FROM snapshots WHERE path = ?", (name,))
