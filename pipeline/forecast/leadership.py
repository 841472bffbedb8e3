"""Which process forecasts a lake: the one that holds its lease, and proves it in every commit. Called by `pipeline.forecast`."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.schemas import Forecasts
from pipeline.settings import Settings
from pipeline.store.commits import Fence
from pipeline.store.forecasts import claim_forecasts
from pipeline.store.lake import Lake
from pipeline.store.lease import Holder, Leases

logger = logging.getLogger(__name__)

LENGTH = timedelta(seconds=15)  # a standby takes over this long after its predecessor's last sign of life
PROCESS = ", process "  # between the machine and the number in a holder's name
RENEWALS = 5  # in the length of a lease: a busy disk may eat some
LOOK = timedelta(seconds=1)  # how often a single run looks at a holder that may be dead


@dataclass(frozen=True)
class Leadership:
    """A lease that was taken.

    Attributes:
        leases: the leases of the state folder.
        name: the lease's name.
        fence: goes with every commit to the tables.
    """

    leases: Leases
    name: str
    fence: Fence

    @staticmethod
    def take(settings: Settings, clock: Clock) -> "Leadership | None":
        """Take the lease on forecasting a lake with a registered model; None while another process holds it.

        A holder in another container may be dead. It is watched for `LENGTH`, or until it shows that it lives.

        Raises:
            StoreError: when the lake or the leases cannot be read.
        """
        candidate = Candidate(settings, clock)
        taken = candidate.ask()
        for _ in range(LENGTH // LOOK):
            if taken is not None or not candidate.is_in_doubt:
                break
            time.sleep(LOOK.total_seconds())
            taken = candidate.ask()
        return taken

    def claim(self, settings: Settings) -> None:
        """Shut out all earlier holders, of this machine and of others, from the table of forecasts; release the lease if that fails.

        Raises:
            LeaseLostError: when a later holder has claimed it.
            StoreError: when the table cannot be written.
        """
        try:
            claim_forecasts(Lake(settings.lake), self.fence)
        except BaseException:
            self.release()
            raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Run the block while nobody can take over.

        Raises:
            LeaseLostError: when another process has taken over already.
        """
        with self.leases.fenced(self.name, self.fence.token):
            yield

    def check(self) -> None:
        """Make sure, at little cost, that the lease is still held.

        Raises:
            LeaseLostError: when another process has taken it.
        """
        with self.held():
            pass

    def release(self) -> None:
        """Give the lease back, so that a standby need not wait until it expires, as it does where this fails."""
        try:
            self.leases.release(self.name, self.fence.token)
        except StoreError as error:
            logger.warning("lease not released; it expires after %d s: %s", LENGTH.seconds, error)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease in a thread while the block runs, however long a tick takes; release it at the end.

        A renewal that fails because the disk is full is tried again; once the lease is another's, the thread ends and `check` tells.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(ended,), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()

    def _renew_until(self, ended: threading.Event) -> None:
        problem: str | None = None
        while not ended.wait(LENGTH.total_seconds() / RENEWALS):
            try:
                if not self.leases.renew(self.name, self.fence.token):
                    return
                problem = None
            except StoreError as error:
                if str(error) != problem:
                    logger.warning("lease not renewed: %s", error)
                problem = str(error)


class Candidate:
    """Asks for the lease again and again, and watches the holder meanwhile.

    A holder that has not renewed the lease for `LENGTH` counts as dead, counted from when this candidate saw the last renewal, by its own
    monotonic clock: the wall clocks of both processes play no part.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._lake, self._leases, self._name, self._clock = Lake(settings.lake), Leases(settings.state_dir), lease_name(settings), clock
        self._first: Holder | None = None  # as first seen: a holder that looks different now has renewed the lease since: it lives
        self._last: Holder | None = None  # as last seen
        self._seen_at = timedelta(0)  # when it first looked like that, by `Clock.elapsed`

    def ask(self) -> Leadership | None:
        """Take the lease if nobody holds it, or its holder is dead.

        Raises:
            StoreError: when the lake or the leases cannot be read.
        """
        floor = self._lake.last_seq(Forecasts, self._name) or 0  # a state folder that was lost counts on
        holder = self._leases.holder(self._name)
        self._first = self._first or holder
        if holder != self._last:
            self._last, self._seen_at = holder, self._clock.elapsed()
        is_dead = holder is not None and (_is_alive(holder) is False or self._clock.elapsed() - self._seen_at >= LENGTH)
        me = f"{_machine()}{PROCESS}{os.getpid()}"
        token = self._leases.take(self._name, me, instead_of=holder if is_dead else None, floor=floor)
        return None if token is None else Leadership(self._leases, self._name, Fence(self._name, token))

    @property
    def is_in_doubt(self) -> bool:
        """Whether the holder may be dead: it has not renewed the lease while it was watched."""
        return self._last is not None and self._last == self._first and _is_alive(self._last) is None


def lease_name(settings: Settings) -> str:
    """Return the lease's name: one process at a time forecasts with a registered model."""
    return f"forecast/{settings.tracking.model_name}/lease"


def leader(settings: Settings) -> Holder | None:
    """Return who took the lease last."""
    return Leases(settings.state_dir).holder(lease_name(settings))


def _machine() -> str:
    """Return where a process number is valid: the host and, on Linux, the namespace (each container has its own)."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.stat().st_ino}" if namespace.exists() else socket.gethostname()


def _is_alive(holder: Holder) -> bool | None:
    """Whether the process of a holder has not ended; None for one of another machine."""
    machine, _, process = holder.name.rpartition(PROCESS)
    if machine != _machine() or not process.isdecimal():
        return None
    try:
        os.kill(int(process), 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
