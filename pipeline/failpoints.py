"""Named places where a test ends the process as a power failure would, or stops it as a machine that sleeps, and one variable for where.

`TIDECAST_FAILPOINT=drain.after_quarantine:2` ends it when it passes that place for the second time; `lake.before_write:1:stop` stops it
until it gets SIGCONT, which makes a zombie of it: others have gone on meanwhile. Called by every step between the receipt of a message and
the commit of a forecast; it looks at the environment and does nothing else.
"""

import os
import signal
from collections import Counter
from typing import Literal, get_args

from pipeline.errors import SettingsError

VARIABLE = "TIDECAST_FAILPOINT"
KILLED = 137  # as a shell says of a process that was killed with signal 9
STOP = "stop"

Failpoint = Literal[
    "inbox.before_commit",
    "inbox.after_commit",
    "mqtt.before_ack",
    "mqtt.after_ack",
    "lake.before_write",
    "drain.after_read",
    "drain.after_quarantine",
    "drain.after_readings",
    "regularise.after_commit",
    "forecast.after_commit",
    "forecast.after_snapshot",
]
_passes: Counter[str] = Counter()


def failpoint(name: Failpoint) -> None:
    """End the process at once, with nothing flushed and nothing closed, or stop it, if the environment asks for it at this pass.

    Args:
        name: the place, as the variable names it.

    Raises:
        SettingsError: when the variable names no place, or no number of passes.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    place, passes, *how = [*asked.split(":"), ""] if ":" not in asked else asked.split(":")
    if place not in get_args(Failpoint) or not passes.isdecimal() or how not in ([], [STOP]):
        raise SettingsError(f"{VARIABLE} requires place:passes, as in drain.after_read:1; got {asked!r}. Unset it but for tests.")
    _passes[name] += 1
    if name == place and _passes[name] == int(passes):
        if how:
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            os._exit(KILLED)
