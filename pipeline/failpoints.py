"""Named places where a test ends the process as a power failure would, and one variable that says where.

`TIDECAST_FAILPOINT=drain.after_quarantine:2` ends it when it passes that place for the second time. Called by every step between the
receipt of a message and the commit of a forecast; it looks at the environment and does nothing else.
"""

import os
from collections import Counter
from typing import Literal, get_args

from pipeline.errors import SettingsError

VARIABLE = "TIDECAST_FAILPOINT"
KILLED = 137  # as a shell says of a process that was killed with signal 9

Failpoint = Literal[
    "inbox.before_commit",
    "inbox.after_commit",
    "mqtt.before_ack",
    "mqtt.after_ack",
    "drain.after_read",
    "drain.after_quarantine",
    "drain.after_readings",
    "regularise.after_commit",
    "forecast.after_commit",
    "forecast.after_snapshot",
]
_passes: Counter[str] = Counter()


def failpoint(name: Failpoint) -> None:
    """End the process at once, with nothing flushed and nothing closed, if the environment asks for it at this pass.

    Args:
        name: the place, as the variable names it.

    Raises:
        SettingsError: when the variable names no place, or no number of passes.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    place, _, passes = asked.partition(":")
    if place not in get_args(Failpoint) or not passes.isdecimal():
        raise SettingsError(f"{VARIABLE} requires place:passes, as in drain.after_read:1; got {asked!r}. Unset it but for tests.")
    _passes[name] += 1
    if name == place and _passes[name] == int(passes):
        os._exit(KILLED)
