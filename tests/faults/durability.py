"""Files and folders as a disk has them: what an fsync has reached, and what came since, of which any part may be left. See `disks.py`."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

SECTOR = 512


class Names(StrEnum):
    """Which changes of names are kept that no fsync of their folder followed."""

    ALL = "all"
    NONE = "none"
    ORDERED = "ordered"  # the first so many of all folders together
    ANY = "any"  # each or not


class Contents(StrEnum):
    """What is kept of writes that no fsync of their file followed."""

    ALL = "all"
    NONE = "none"
    PREFIX = "prefix"  # the first so many, the last of them torn
    ANY = "any"  # each or not
    ZEROES = "zeroes"  # their lengths
    MIXED = "mixed"  # of each file in another of these ways


@dataclass(frozen=True)
class Write:
    """A change of a file: bytes at an offset, or, where they are None, a new length."""

    stamp: int
    offset: int
    data: bytes | None

    def onto(self, content: bytearray) -> None:
        """Make the change."""
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
            return
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(eq=False)
class File:
    """A file: what an fsync has reached, what was written since, and both together, as a running machine sees it."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)
    current: bytearray = field(default_factory=bytearray)

    def write(self, change: Write) -> None:
        """Change it."""
        change.onto(self.current)
        self.pending.append(change)

    def sync(self, before: int) -> None:
        """Make durable what was done before a call."""
        for change in self.pending:
            if change.stamp < before:
                change.onto(self.durable)
        self.pending = [change for change in self.pending if change.stamp >= before]

    def after(self, contents: Contents, dice: random.Random) -> bytes:
        """Return what is left of it."""
        if contents is Contents.MIXED:
            contents = dice.choice([one for one in Contents if one is not Contents.MIXED])
        content = bytearray(self.durable)
        for change in self._kept(contents, dice):
            change.onto(content)
        return bytes(content)

    def _kept(self, contents: Contents, dice: random.Random) -> Iterator[Write]:
        if contents is Contents.ALL:
            yield from self.pending
        elif contents is Contents.ANY:
            yield from (change for change in self.pending if dice.random() < 0.5)
        elif contents is Contents.ZEROES:
            for change in self.pending:
                yield change if change.data is None else Write(change.stamp, change.offset, bytes(len(change.data)))
        elif contents is Contents.PREFIX and self.pending:
            whole = dice.randrange(len(self.pending))
            yield from self.pending[:whole]
            torn = self.pending[whole]
            length = 0 if torn.data is None else dice.randrange(len(torn.data) // SECTOR + 1) * SECTOR
            yield Write(torn.stamp, torn.offset, b"" if torn.data is None else torn.data[:length])


@dataclass(eq=False)
class Folder:
    """A folder: its names that an fsync has reached, their changes since, and both together."""

    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[tuple[int, dict[str, "File | Folder | None"]]] = field(default_factory=list)
    current: dict[str, "File | Folder"] = field(default_factory=dict)

    def change(self, stamp: int, names: dict[str, "File | Folder | None"]) -> None:
        """Give, take or replace names, all at once."""
        changed(self.current, names)
        self.pending.append((stamp, names))

    def sync(self, before: int) -> None:
        """Make durable what was done before a call."""
        for stamp, names in self.pending:
            if stamp < before:
                changed(self.durable, names)
        self.pending = [(stamp, names) for stamp, names in self.pending if stamp >= before]


def changed(entries: dict[str, File | Folder], names: dict[str, File | Folder | None]) -> None:
    """Give, take or replace names of a folder."""
    for name, node in names.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node
