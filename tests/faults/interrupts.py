"""Programs that start processes: whoever ends such a program has everything ended that it started."""

import signal
import sys


def end_when_asked() -> None:
    """Turn SIGTERM and SIGHUP into the end of the program, through every block that ends what it has started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
