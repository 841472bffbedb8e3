"""What a process does to the files below a folder, recorded by strace: every write with its bytes, every fsync, every change of a name.

strace sees system calls, so it sees Rust's as it sees SQLite's; a preloaded library sees only what goes through the names of the C library.
What it cannot see is a write through a memory map: SQLite's `-shm` is one, and holds nothing that outlives the last process. That nothing
else is missed is held by a test, which replays a whole recording and compares it with the folder.

On a developer's machine without strace, or where it may not trace, the tests are skipped with the reason; where CI=true they fail.
"""

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TRACED = (
    "openat,open,creat,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,copy_file_range,sendfile"
)
LONGEST = 64 * 1024**2  # bytes of one write; a longer one would be cut, and the replay would not be the folder
STARTED = re.compile(r"(\d+) +(\w+)\((.*)", re.DOTALL)
UNFINISHED = " <unfinished ...>"
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
RESULT = re.compile(r"(.*)\) += (-?\d+)(?:<(.*?)>)?(?: .*)?$", re.DOTALL)
DESCRIPTOR = re.compile(r"(\d+|AT_FDCWD)<(.*)>")
QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
ARGUMENT = re.compile(rf'(?:{QUOTED}|<[^>]*>|\[(?:{QUOTED}|[^\]"])*\]|[^,"<\[])+')


@dataclass(frozen=True)
class Call:
    """One system call that succeeded, in the order in which calls returned.

    Attributes:
        name: of the call.
        arguments: as strace writes them.
        result: what it returned.
        place: the path of the descriptor that it returned, where it did.
        started: how many calls had returned when it began: an fsync holds for them alone.
    """

    name: str
    arguments: tuple[str, ...]
    result: int
    place: str | None
    started: int


def record(command: Sequence[str], output: Path, environment: Mapping[str, str]) -> list[Call]:
    """Run a command to its end and return the calls that it made, those to the files of other folders included.

    Args:
        command: whose exit code must be 0.
        output: gets strace's own words.
        environment: of the command, beside ours.
    """
    strace = find_strace()
    traced = [strace, "-f", "--seccomp-bpf", "-y", "-s", str(LONGEST), "-e", f"trace={TRACED}", "-e", "signal=none", "-o", str(output)]
    done = subprocess.run([*traced, *command], env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(_calls(output))


class NoStraceError(RuntimeError):
    """There is no strace, or it may not trace."""


@cache
def find_strace() -> str:
    """Return the path of strace.

    Raises:
        NoStraceError: where it is not there, or may not trace.
    """
    program = shutil.which("strace")
    why = "apt-get install strace"
    if program is not None:
        tried = subprocess.run([program, "-f", "--seccomp-bpf", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
        why = tried.stderr.strip()
        if tried.returncode == 0:
            return program
    raise NoStraceError(f"a recording requires strace, and the right to trace; got: {why}")


def _calls(output: Path) -> Iterator[Call]:
    """Yield the calls that succeeded, each when it returns."""
    begun: dict[str, tuple[str, str, int]] = {}
    returned = 0
    with output.open(encoding="latin-1", newline="\n") as lines:
        for line in map(str.rstrip, lines):
            if resumed := RESUMED.match(line):
                name, head, started = begun.pop(resumed[1])
                text = head + resumed[3]
            elif match := STARTED.match(line):
                name, text, started = match[2], match[3], returned
                if text.endswith(UNFINISHED):
                    begun[match[1]] = (name, text.removesuffix(UNFINISHED), started)
                    continue
            else:  # the end of a thread
                continue
            call = _call(name, text, started)
            if call is not None:
                returned += 1
                yield call


def _call(name: str, text: str, started: int) -> Call | None:
    match = RESULT.match(text)
    assert match, f"strace wrote what is no call: {text[:200]}"
    arguments = tuple(part.strip() for part in ARGUMENT.findall(match[1]))
    return None if int(match[2]) < 0 else Call(name, arguments, int(match[2]), match[3], started)


def text_of(argument: str) -> bytes:
    """Return the bytes of a quoted argument; strace's escapes are those of C, and so Python's."""
    assert argument.endswith('"'), f"strace cut an argument: {argument[:80]}"
    found: bytes = ast.literal_eval(f"b{argument}")
    return found


def path_of(argument: str) -> str:
    """Return the path that a descriptor stands for."""
    match = DESCRIPTOR.match(argument)
    assert match, f"strace names no path: {argument}"
    return match[2]
