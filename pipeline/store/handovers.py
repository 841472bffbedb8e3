"""Which model forecasts, since when, and which did before: a line of JSON for each change, in the state folder.

The registry's champion is what ought to forecast; a model that has just become it has no state yet. What does forecast is written down
here when it changes, so that a follower that dies between the two goes on with the old one. Called by `pipeline.forecast`.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pipeline.store.state_files import make_folder, sync

FILE_NAME = "handovers.jsonl"


@dataclass(frozen=True)
class Handover:
    """One change of the model that forecasts.

    Attributes:
        version: in the registry.
        model: `LoadedModel.identity`.
        previous: of the model before; None for the first.
        last_origin: the newest origin that the model before forecast from, ISO 8601; None where there was none.
        at: by the clock of the process, ISO 8601.
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

    def all(self) -> list[Handover]:
        """Return every change, oldest first; a last line that a crash cut short is no change."""
        path = self.state_dir / FILE_NAME
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [Handover(**json.loads(line)) for line in lines if line.endswith("}")]

    def newest(self) -> Handover | None:
        """Return the last change; None before the first."""
        return next(reversed(self.all()), None)

    def record(self, version: str, model: str, at: datetime, last_origin: datetime | None = None) -> None:
        """Write down that a model forecasts from now on; nothing where it does already. On disk when the call returns."""
        before = self.newest()
        if before is not None and before.model == model:
            return
        previous = None if before is None else before.model
        change = Handover(version, model, previous, last_origin.isoformat() if last_origin else None, at.isoformat())
        make_folder(self.state_dir)
        with (self.state_dir / FILE_NAME).open("a", encoding="utf-8") as file:
            cut_short = file.tell() > 0 and not (self.state_dir / FILE_NAME).read_text(encoding="utf-8").endswith("\n")
            file.write(("\n" if cut_short else "") + json.dumps(asdict(change)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync(self.state_dir)
