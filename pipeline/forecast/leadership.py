"""Which process forecasts a lake: the one that holds its lease, and proves it in every commit. Called by `pipeline.forecast`."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

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


@dataclass(frozen=True)
class Leadership:
    """A lease that was taken.

    Attributes:
        leases: of the state folder.
        name: of the lease.
        fence: for the tables.
    """

    leases: Leases
    name: str
    fence: Fence

    @classmethod
    def take(cls, settings: Settings, clock: Clock) -> Self | None:
        """Take the lease on forecasting a lake with a registered model; None while another process holds it.

        Raises:
            StoreError: when the lake or the leases cannot be read.
        """
        leases, name = Leases(settings.state_dir), lease_name(settings)
        floor = Lake(settings.lake).last_seq(Forecasts, name) or 0  # a state folder that was lost counts on
        before = leases.holder(name)
        if before is not None and _is_dead(before):  # killed here: its lease need not be waited for
            leases.release(name, before.token)
        token = leases.take(name, f"{_machine()}{PROCESS}{os.getpid()}", clock.now(), LENGTH, floor=floor)
        return None if token is None else cls(leases, name, Fence(name, token))

    def claim(self, settings: Settings) -> None:
        """Shut out all earlier holders, of this machine and of others, from the table of forecasts."""
        claim_forecasts(Lake(settings.lake), self.fence)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Run the block while nobody can take over.

        Raises:
            LeaseLostError: when somebody has.
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
        """Give the lease back, so that a standby need not wait for its end."""
        self.leases.release(self.name, self.fence.token)

    @contextmanager
    def renewed(self, clock: Clock) -> Iterator[None]:
        """Renew the lease in a thread while the block runs, however long a tick takes; release it at the end.

        A renewal that fails because the disk is full is tried again; once the lease is another's, the thread ends and `check` tells.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=(ended, clock), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()

    def _renew_until(self, ended: threading.Event, clock: Clock) -> None:
        while not ended.wait(LENGTH.total_seconds() / RENEWALS):
            try:
                if not self.leases.renew(self.name, self.fence.token, clock.now(), LENGTH):
                    return
            except StoreError as error:
                logger.warning("lease not renewed: %s", error)


def lease_name(settings: Settings) -> str:
    """Return what the lease is called: one registered model is forecast with by one process."""
    return f"forecast/{settings.tracking.model_name}/lease"


def leader(settings: Settings) -> Holder | None:
    """Return who took the lease last."""
    return Leases(settings.state_dir).holder(lease_name(settings))


def _machine() -> str:
    """Return what the numbers of processes belong to: the host and, where the system has them, the namespace (a container's own)."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.stat().st_ino}" if namespace.exists() else socket.gethostname()


def _is_dead(holder: Holder) -> bool:
    """Whether a holder was a process of this machine that has ended; of others only the end of the lease tells."""
    machine, _, process = holder.name.rpartition(PROCESS)
    if machine != _machine() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:  # alive, and another user's
        return False
    return False
