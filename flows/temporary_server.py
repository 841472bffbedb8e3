"""The server that Prefect starts for a process without PREFECT_API_URL: here in a session of its own, and never left behind.

Prefect starts it in the verb's own process group, where a Ctrl-C or a service manager's SIGTERM ends it together with the verb; the flow
then tries for more than a minute to tell it that it was stopped. And a verb that is killed with signal 9 leaves it running for ever. Called
by `flows.orchestrated`; run as a script, this module is the server's process.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import uvicorn
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

STOP_S = 5.0  # what Prefect itself gives its server to end


class TemporaryServer(SubprocessASGIServer):
    """Prefect's temporary server, in a process that no signal to the verb's group reaches and that ends when the verb has ended."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        asked = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}  # as Prefect asks it
        return subprocess.Popen(  # noqa: S603 (the command is ours)
            (sys.executable, "-P", __file__, str(self.port)),  # -P: no `flows` of the user's comes before the installed packages
            env={**os.environ, **asked, **get_current_settings().to_environment_variables(exclude_unset=True)},
            stdin=subprocess.PIPE,  # closed by the system when this process ends
            start_new_session=True,
        )


def _serve(port: int) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")


def _end_with_parent() -> None:
    """End this process when the other end of its standard input is closed, which nobody writes to."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
