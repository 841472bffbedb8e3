"""Disks as they may be after the power went: a recording is replayed up to a cut, and what no fsync had reached is kept, lost or torn.

The model is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014) and CrashMonkey (Mohan et al., "Finding
Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI 2018), by what POSIX promises and no more:

- a file keeps what was written before its last fsync or fdatasync began, once that has returned; of each write after it any part may be
  there: all of it, nothing, its length with zeroes in it (delayed allocation of ext4 and XFS), or a prefix that is cut at a sector;
- an fsync of a file says nothing of its name: a name that was made, renamed, linked or unlinked since the last fsync of its folder may be
  there or not, and a folder whose own name is lost takes all below it along. A rename is whole or not at all (journals);
- ext4 and XFS are kinder: their journal keeps the changes of names in order. That is one of the variants, `ORDERED`.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.faults.durability import Contents, File, Folder, Names, Write, changed
from tests.faults.recording import Call, path_of, text_of


class Disk:
    """The file system below a folder, which was there and empty when the recording began.

    Attributes:
        root: the folder, as the recorded process called it.
        stamp: how many calls have been replayed.
        changes: how many of them changed a file or a name.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.stamp, self.changes = root, 0, 0
        self._top = Folder()
        self._at: dict[str, int | None] = {}  # of each descriptor: where the next write goes; None: to the end
        self._journal = 0  # every change of a name before this call is on disk, where the journal keeps their order

    def replay(self, call: Call) -> None:
        """Do what a call did; calls on other folders count and do nothing."""
        act = getattr(self, f"_do_{call.name}", None)
        if act is not None:
            act(call)
        else:
            assert str(self.root) not in str(call), f"a call that the model does not know: {call}"
        self.stamp += 1

    def current(self) -> dict[str, bytes]:
        """Return every file, by its path below the root, as the running machine sees it."""
        return dict(_files(self._top, ""))

    def lay_out(self, folder: Path, names: Names, contents: Contents, dice: random.Random) -> None:
        """Make what may be left after the power went, in a folder that is there."""
        stamps = sorted({stamp for node in _folders(self._top) for stamp, _ in node.pending})
        last = dice.choice([self._journal, *(stamp for stamp in stamps if stamp >= self._journal)])
        made: dict[File, bytes] = {}

        kept = {
            Names.ALL: set(stamps),
            Names.NONE: set(),
            Names.ORDERED: {stamp for stamp in stamps if stamp <= last},
            Names.ANY: {stamp for stamp in stamps if dice.random() < 0.5},
        }[names]

        def lay(node: Folder, place: Path) -> None:
            entries = dict(node.durable)
            for stamp, change in node.pending:
                if stamp in kept:
                    changed(entries, change)
            for name, entry in entries.items():
                if isinstance(entry, Folder):
                    (place / name).mkdir()
                    lay(entry, place / name)
                    continue
                if entry not in made:  # of two names of one file both show the same
                    made[entry] = entry.after(contents, dice)
                (place / name).write_bytes(made[entry])

        lay(self._top, folder)

    def _find(self, path: str) -> tuple[Folder, str] | None:
        """Return the folder of a path and its name there; None for what is elsewhere, or was deleted."""
        if path == str(self.root) or not path.startswith(f"{self.root}/"):
            return None
        *above, name = path.removeprefix(f"{self.root}/").rstrip("/").split("/")
        node = self._top
        for part in above:
            below = node.current.get(part)
            if not isinstance(below, Folder):
                return None
            node = below
        return node, name

    def _node(self, path: str) -> File | Folder | None:
        if path == str(self.root):
            return self._top
        found = self._find(path)
        return None if found is None else found[0].current.get(found[1])

    def _file(self, argument: str) -> File | None:
        node = self._node(path_of(argument))
        return node if isinstance(node, File) else None

    def _change(self, path: str, node: File | Folder | None) -> None:
        found = self._find(path)
        if found is not None:
            self.changes += 1
            found[0].change(self.stamp, {found[1]: node})

    def _write(self, file: File, offset: int, data: bytes | None) -> None:
        self.changes += 1
        file.write(Write(self.stamp, offset, data))

    def _do_openat(self, call: Call) -> None:
        path, flags = call.place or "", call.arguments[2]
        self._at[str(call.result)] = None if "O_APPEND" in flags else 0
        found = self._find(path)
        if found is None:
            return
        node = found[0].current.get(found[1])
        if node is None and "O_CREAT" in flags:
            self._change(path, File())
        elif isinstance(node, File) and "O_TRUNC" in flags and node.current:
            self._write(node, 0, None)

    def _do_lseek(self, call: Call) -> None:
        self._at[call.arguments[0].split("<")[0]] = call.result

    def _do_write(self, call: Call) -> None:
        file, descriptor = self._file(call.arguments[0]), call.arguments[0].split("<")[0]
        if file is None:
            return
        at = self._at.get(descriptor, 0)
        self._write(file, len(file.current) if at is None else at, text_of(call.arguments[1])[: call.result])
        self._at[descriptor] = None if at is None else at + call.result

    def _do_pwrite64(self, call: Call) -> None:
        file = self._file(call.arguments[0])
        if file is not None:
            self._write(file, int(call.arguments[3]), text_of(call.arguments[1])[: call.result])

    def _do_ftruncate(self, call: Call) -> None:
        file = self._file(call.arguments[0])
        if file is not None:
            self._write(file, int(call.arguments[1]), None)

    def _do_fsync(self, call: Call) -> None:
        node = self._node(path_of(call.arguments[0]))
        if node is None:
            return
        self.changes += 1
        node.sync(call.started)
        if isinstance(node, Folder):
            self._journal = max(self._journal, call.started)

    _do_fdatasync = _do_fsync

    def _do_rename(self, call: Call) -> None:
        old, new = _paths(call)
        source, target = self._find(old), self._find(new)
        if source is None and target is None:
            return
        assert source is not None, f"a rename into the recorded folder: {old} {new}"
        assert target is not None, f"a rename out of the recorded folder: {old} {new}"
        self.changes += 1
        moved = source[0].current[source[1]]
        source[0].change(self.stamp, {source[1]: None})
        target[0].change(self.stamp, {target[1]: moved})

    _do_renameat = _do_renameat2 = _do_rename

    def _do_link(self, call: Call) -> None:
        old, new = _paths(call)
        if self._find(new) is not None:
            self._change(new, self._node(old))

    _do_linkat = _do_link

    def _do_unlink(self, call: Call) -> None:
        self._change(_paths(call)[0], None)

    _do_unlinkat = _do_rmdir = _do_unlink

    def _do_mkdir(self, call: Call) -> None:
        self._change(_paths(call)[0], Folder())

    _do_mkdirat = _do_mkdir


def _paths(call: Call) -> list[str]:
    """Return the paths that a call names, each against the folder before it where it is relative."""
    found, base = [], ""
    for argument in call.arguments:
        if argument.startswith('"'):
            path = text_of(argument).decode()
            found.append(path if path.startswith("/") else f"{base}/{path}")
        elif "<" in argument:
            base = path_of(argument)
    return found


def _files(folder: Folder, above: str) -> Iterator[tuple[str, bytes]]:
    for name, node in folder.current.items():
        if isinstance(node, Folder):
            yield from _files(node, f"{above}{name}/")
        else:
            yield f"{above}{name}", bytes(node.current)


def _folders(folder: Folder) -> Iterator[Folder]:
    yield folder
    for node in {**folder.durable, **folder.current}.values():
        if isinstance(node, Folder):
            yield from _folders(node)
