"""Waiting for what another thread or process does: never for a time, always up to one."""

import time
from collections.abc import Callable

PATIENCE_S = 60.0  # a machine under load is no failure


def until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Look again and again until something holds; fail when that takes too long."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
