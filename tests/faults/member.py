"""One process of a crew, which can be killed and started again, and what one sees of it; see `crew.py`."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0  # without any movement, on a machine with much else to do: a follower alone starts in five seconds
RECOVERY_S = 300.0  # to the first commit of a life, with everything it has to catch up on
LONGEST_S = 1_200.0  # for anything at all: a stream that goes on would hide one who does nothing
LOOK_S = 0.05
LOOK_FOR_MOVES_S = 1.0


class DidNotRecoverError(AssertionError):
    """A process that was started ended by itself, or nothing moved for `PATIENCE_S`."""


@dataclass(eq=False)
class Member:
    """One process, and how one sees what it has committed.

    Attributes:
        name: of the process and of its log.
        command: that starts it.
        environment: of the command.
        folder: of its output, `<name>.out` and `<name>.err`, of all its lives.
        committed: a number that rises with everything it commits.
        moves: something that changes for as long as anybody of its crew gets on.
        recoveries_s: of each life after a kill that committed something: seconds from the start of the process to that.
        kills: by signal 9.
        num_lives: how often it was started.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    committed: Callable[[], int]
    moves: Callable[[], object]
    recoveries_s: list[float] = field(default_factory=list)
    kills: int = 0
    num_lives: int = 0

    def start(self, **environment: str) -> Self:
        """Start it, with variables that hold for this life alone."""
        self._before, self._is_recovering, self.started_at = self.committed(), True, time.monotonic()
        self._said = len(self.said("err"))
        with (self.folder / f"{self.name}.out").open("ab") as out, (self.folder / f"{self.name}.err").open("ab") as err:
            variables = {**os.environ, **self.environment, **environment}
            self._process = subprocess.Popen(self.command, env=variables, stdout=out, stderr=err, cwd=ROOT)
        self.num_lives += 1
        return self

    def note_recovery(self) -> None:
        """Take down how long this life took to its first commit, when that is there; whoever measures looks often.

        Raises:
            DidNotRecoverError: with its last words, when it takes longer than `RECOVERY_S`.
        """
        if self._is_recovering and self.committed() > self._before:
            self._is_recovering = False
            if self.kills:
                self.recoveries_s.append(time.monotonic() - self.started_at)
        if self._is_recovering and time.monotonic() > self.started_at + RECOVERY_S:
            raise DidNotRecoverError(f"{self.name} has committed nothing in {RECOVERY_S:.0f} s\n{self.said('err')[-3000:]}")

    def has_recovered(self) -> bool:
        """Return whether this life has committed anything.

        Raises:
            DidNotRecoverError: with its last words, when it has ended or takes too long.
        """
        self.note_recovery()
        if self._process.poll() is not None:
            raise DidNotRecoverError(f"{self.name} ended with {self._process.returncode}\n{self.said('err')[-3000:]}")
        return not self._is_recovering

    def recover(self) -> None:
        """Wait until it has committed something."""
        wait(self.has_recovered, self.moves)

    def end(self) -> None:
        """End it as a power failure would, if it has not ended by itself."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it as a power failure would, and count that.

        Raises:
            DidNotRecoverError: when it had ended by itself.
        """
        self.end()
        self._require_end(-signal.SIGKILL)
        self.kills += 1

    def keep_running(self) -> None:
        """Start it again if it has ended, as a service manager does.

        Raises:
            DidNotRecoverError: when it ended by anything but a fault that it said in a sentence, or a kill of ours.
        """
        if not self.is_running():
            self._require_end(1, -signal.SIGKILL)
            self.start()

    def died(self, code: int) -> None:
        """Count a death that it was started to die.

        Raises:
            DidNotRecoverError: when it ended otherwise.
        """
        self._must_end_with(code)
        self.kills += 1

    def stop(self) -> None:
        """Ask it to end, once it has said something and so knows how to.

        Raises:
            DidNotRecoverError: when it does not end with 0.
        """
        self.first_word()
        self._process.send_signal(signal.SIGTERM)
        self._must_end_with(0)

    def first_word(self) -> str:
        """Wait until this life of it says something, and return that."""
        wait(lambda: len(self.said("err")) > self._said, self.moves)
        return self.said("err")[self._said :]

    def subscribe(self, **environment: str) -> Self:
        """Start a listener and wait until the broker keeps messages for it: what is published before is nobody's."""
        self.start(**environment)
        wait(lambda: "subscribed" in self.said("err")[self._said :], self.moves)
        return self

    def is_running(self) -> bool:
        """Return whether it has been started and has not ended."""
        return hasattr(self, "_process") and self._process.poll() is None

    def said(self, stream: str) -> str:
        """Return everything that its lives have written to `out` or `err`."""
        path = self.folder / f"{self.name}.{stream}"
        return path.read_text(errors="replace") if path.exists() else ""

    def _must_end_with(self, code: int) -> None:
        wait(lambda: self._process.poll() is not None, self.moves)  # a last drain may be of a million readings
        self._require_end(code)

    def _require_end(self, *codes: int) -> None:
        if self._process.returncode not in codes:
            wanted = " or ".join(map(str, codes))
            raise DidNotRecoverError(f"{self.name} was to end with {wanted}; got {self._process.returncode}\n{self.said('err')[-3000:]}")


def wait(is_so: Callable[[], bool], moves: Callable[[], object], pause_s: float = LOOK_S) -> None:
    """Wait for something that other processes do, for as long as they get on at all.

    Args:
        is_so: whether it has come.
        moves: something that changes while they get on.
        pause_s: between two looks.

    Raises:
        DidNotRecoverError: when nothing has moved for `PATIENCE_S`, or it has not come in `LONGEST_S`.
    """
    begun = moved_at = looked_at = time.monotonic()
    seen = moves()
    while not is_so():
        now = time.monotonic()
        if now > looked_at + LOOK_FOR_MOVES_S:
            looked_at, found = now, moves()
            seen, moved_at = found, (moved_at if found == seen else now)
        if now > min(moved_at + PATIENCE_S, begun + LONGEST_S):
            raise DidNotRecoverError(f"waited in vain; for {now - moved_at:.0f} s nothing has moved from {seen}")
        time.sleep(pause_s)
