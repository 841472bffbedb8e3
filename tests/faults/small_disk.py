"""A disk of a few MiB below a lake, that can be filled and freed: a real file system in memory, mounted for the length of a block.

Mounting needs root. Where it is refused, `no_space.py` refuses what is written instead, in each process that is started with it.
"""

import errno
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

FOLDERS = "FULL_DISKS"  # variable: where `no_space` looks for the mark of a full disk
MARK = ".full"
NUM_MIB = 32
BLOCK = 256 * 1024


class SmallDisk:
    """A folder whose disk is small.

    Attributes:
        folder: of the disk.
        is_real: whether it is a file system of its own; else `no_space` must be imported by whoever is to find it full.
    """

    def __init__(self, folder: Path, *, is_real: bool = True) -> None:
        """Make the folder; with `is_real` a disk is mounted there if this process may."""
        self.folder = folder
        self.is_real = is_real
        self._ballast = folder / "ballast"

    def __enter__(self) -> Self:
        """Mount it."""
        self.folder.mkdir(parents=True)
        if self.is_real:
            command = ["mount", "-t", "tmpfs", "-o", f"size={NUM_MIB}m", "tidecast-faults", str(self.folder)]
            self.is_real = subprocess.run(command, check=False, capture_output=True).returncode == 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Unmount it, whatever happened; after a failure its files are kept beside it."""
        if not self.is_real:
            return
        try:
            if error is not None:
                shutil.copytree(self.folder, f"{self.folder}-kept", ignore=shutil.ignore_patterns(self._ballast.name))
        finally:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leave no room at all; again, when some has been freed meanwhile."""
        if not self.is_real:
            (self.folder / MARK).touch()
            return
        with self._ballast.open("ab", buffering=0) as file:
            size = BLOCK
            while size:
                try:
                    file.write(b"\0" * size)
                except OSError as refused:
                    if refused.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Give the room back."""
        with suppress(FileNotFoundError):
            (self.folder / MARK).unlink()
        with suppress(FileNotFoundError):
            self._ballast.unlink()


def folders_in(text: str) -> list[Path]:
    """Return the folders that a variable names."""
    return [Path(folder) for folder in text.split(os.pathsep) if folder]
