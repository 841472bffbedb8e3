"""A server of another package, run so that it ends with the process that started it, however that ends: also by signal 9.

Its standard input is a pipe that nobody writes to; the system closes it when the parent ends. Called by `flows.temporary_server` and
`flows.ui`; run as a script, this module is the server's process. It imports nothing of ours, which need not be installed.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO

STOP_S = 5.0  # what Prefect gives its own server to end


def start_server(module: str, *arguments: str, environment: Mapping[str, str], output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start `python -m module arguments…` in a session of its own, which no signal to our process group reaches.

    Args:
        module: what to run.
        arguments: its command line.
        environment: all of its variables.
        output: gets what it says on stdout and stderr; None: where ours goes.
    """
    return subprocess.Popen(  # noqa: S603 (the commands are ours)
        (sys.executable, "-P", __file__, module, *arguments),  # -P: no module beside this file or in the user's folder comes first
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )


def _run(module: str) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    """End this process and those that it started when the other end of its standard input is closed."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(os.getpid(), signal.SIGTERM)  # we lead our group
    time.sleep(STOP_S)
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _run(sys.argv[1])
