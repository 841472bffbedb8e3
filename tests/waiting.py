"""Waiting for what another thread or process does: never for a time, always up to one."""

import os
import subprocess
import time
from collections.abc import Callable

PATIENCE_S = 60.0  # a machine under load is no failure


def until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Look again and again until something holds; fail when that takes too long."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def until_stopped(process: subprocess.Popen[str], patience_s: float = PATIENCE_S) -> None:
    """Wait until a child of ours has been stopped by a signal; fail when it ends instead."""

    def is_stopped() -> bool:
        assert process.poll() is None, "ended before it was stopped"
        return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None

    until(is_stopped, patience_s)
