"""What ends a run from outside: SIGTERM and SIGHUP go the way of Ctrl-C, and nothing that was started stays."""

import atexit
import os
import signal
import sys
from pathlib import Path


def end_when_asked() -> None:
    """Turn SIGTERM and SIGHUP into the end of the program, through every block that ends what it has started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    atexit.register(_end_children)


def _end_children() -> None:
    """End a process in the middle of whose start the signal came: nobody has heard of it yet."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
