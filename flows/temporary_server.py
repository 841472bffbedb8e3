"""The server that Prefect starts for a process without PREFECT_API_URL: here in a session of its own, and never left behind.

Prefect starts it in the verb's own process group, where a Ctrl-C or a service manager's SIGTERM ends it together with the verb; the flow
then tries for more than a minute to tell it that it was stopped. And a verb that is killed with signal 9 leaves it running for ever. Called
by `flows.orchestrated`.
"""

import os
import subprocess
from typing import Any

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from flows.ends_with_parent import start_server


class TemporaryServer(SubprocessASGIServer):
    """Prefect's temporary server, in a process that no signal to the verb's group reaches and that ends when the verb has ended."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        asked = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}  # as Prefect asks it
        return start_server(
            *("uvicorn", "--factory", "prefect.server.api.server:create_app", "--app-dir", str(prefect.__module_path__.parent)),
            *("--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error", "--lifespan", "on"),
            environment={**os.environ, **asked, **get_current_settings().to_environment_variables(exclude_unset=True)},
        )
