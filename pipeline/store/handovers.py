"""Which model forecasts, since when, and which did before: a line of JSON for each change, in the state folder.

The registry's champion is the model that should forecast, but a new champion has no state yet. This file records each change of the model
that does forecast, so that a follower that dies during a handover restarts with the old one. Called by `pipeline.forecast`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pipeline.store.state_files import make_folder, sync

FILE_NAME = "handovers.jsonl"


@dataclass(frozen=True)
class Handover:
    """One change of the model that forecasts.

    Attributes:
        version: registry version of the model that forecasts from now on.
        model: its `LoadedModel.identity`.
        previous: identity of the model before; None for the first.
        last_origin: the newest origin that the model before forecast from, ISO 8601; None if there was none.
        at: instant of the change, by the clock of the process, ISO 8601.
    """

    version: str
    model: str
    previous: str | None
    last_origin: str | None
    at: str


@dataclass(frozen=True)
class Handovers:
    """The changes so far, in a file of the state folder.

    Attributes:
        state_dir: a local folder.
    """

    state_dir: Path

    @property
    def path(self) -> Path:
        """The file; there is none before the first change."""
        return self.state_dir / FILE_NAME

    def all(self) -> list[Handover]:
        """Return every change, oldest first; damaged lines, such as one that a crash cut short, are left out."""
        return [change for change in map(_change, self._lines()) if change is not None]

    def num_damaged(self) -> int:
        """Return how many lines are damaged."""
        return len(self._lines()) - len(self.all())

    def newest(self) -> Handover | None:
        """Return the last change; None before the first."""
        return next(reversed(self.all()), None)

    def record(self, version: str, model: str, at: datetime, last_origin: datetime | None = None) -> None:
        """Record that a model forecasts from now on, unless it already does; fsynced when the call returns."""
        before = self.newest()
        if before is not None and before.model == model:
            return
        previous = None if before is None else before.model
        self.write([Handover(version, model, previous, last_origin.isoformat() if last_origin else None, at.isoformat())])

    def write(self, changes: Sequence[Handover]) -> None:
        """Append changes to the file; fsynced when the call returns."""
        make_folder(self.state_dir)
        is_cut_short = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * is_cut_short + "".join(f"{json.dumps(asdict(change))}\n" for change in changes))
            file.flush()
            os.fsync(file.fileno())
        sync(self.state_dir)

    def _lines(self) -> list[bytes]:
        return [line for line in self.path.read_bytes().split(b"\n") if line] if self.path.exists() else []


def _change(line: bytes) -> Handover | None:
    """Return the change in a line; None if the line is damaged."""
    try:
        change = Handover(**json.loads(line))
    except (TypeError, ValueError):  # no JSON, no text at all, or other fields
        return None
    is_whole = all(isinstance(text, str) for text in (change.version, change.model, change.at))
    return change if is_whole else None
