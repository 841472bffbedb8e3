"""What an examination finds and what a repair did: the words between the parts of the doctor and the command line."""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal[
    "missing_table",
    "torn_commit",
    "missing_commit",
    "old_commit",
    "torn_checkpoint",
    "unreadable_log",
    "missing_file",
    "torn_file",
    "rotten_file",
    "left_over",
    "damaged_database",
    "lost_messages",
    "lost_snapshot",
    "torn_handovers",
]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: what sort of damage.
        place: the file, or the table, that is concerned.
        seen: what is wrong with it, as half a sentence after the place.
        remedy: what to do about it, a sentence.
        table: the table it belongs to; None for the state folder.
        version: the version of the table, where one is concerned.
    """

    kind: Kind
    place: str
    seen: str
    remedy: str
    table: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.seen}. {self.remedy}"


@dataclass(frozen=True)
class DoctorReport:
    """What is wrong with a lake now, and what was done about what was wrong before.

    Attributes:
        findings: what is wrong; empty for a healthy lake.
        repaired: what was wrong and has been mended, by this run.
        actions: what the repair did, a sentence each.
        folder: where everything that was taken out lies; None where nothing was.
        files: data files of the live tables that were looked at.
        hashed: how many of them were held against their content hash.
    """

    findings: tuple[Finding, ...]
    repaired: tuple[Finding, ...] = ()
    actions: tuple[str, ...] = ()
    folder: Path | None = None
    files: int = 0
    hashed: int = 0

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong now."""
        return not self.findings

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready form."""
        return {**asdict(self), "is_healthy": self.is_healthy, "folder": None if self.folder is None else str(self.folder)}


@dataclass
class Ward:
    """Where a repair puts what it takes out: nothing is deleted.

    Attributes:
        root: the folder that the paths of what is taken out are relative to.
        folder: `<lake>/_doctor/<stamp>`, made when the first thing comes.
        actions: what was done so far, a sentence each.
    """

    root: Path
    folder: Path
    actions: list[str] = field(default_factory=list)

    def take(self, path: Path) -> Path:
        """Move a file out of the lake and return where it is now; the same file may come twice, with other content."""
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else Path("state", path.name)
        place = self.folder / inside
        while place.exists():
            place = place.with_name(f"{place.name}.again")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)  # the state folder need not be on the lake's file system
        self.did(f"moved {inside} to {place}")
        return place

    def did(self, what: str) -> None:
        """Note what was done, at once: a repair that is interrupted has left its trace."""
        self.actions.append(what)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "actions.txt").open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")
