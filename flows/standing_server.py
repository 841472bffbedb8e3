"""The Prefect server that PREFECT_API_URL names, looked at before anything is begun; called by `flows.orchestrated` and for `serve`."""

import re

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from pipeline.errors import SettingsError, first_line


def require_answer() -> None:
    """Refuse to go on where the named server does not answer, most often because the `tidecast ui` that started it has ended.

    Raises:
        SettingsError: with the address, without its password, and what came instead of an answer.
    """
    with get_client(sync_client=True) as client:
        fault = client.api_healthcheck()
    if fault is not None:
        got = re.sub(r"//[^/\s]*@", "//", f"{PREFECT_API_URL.value()} ({first_line(fault)})")
        raise SettingsError(
            f"PREFECT_API_URL requires the address of a Prefect server that answers; got {got}. Start that server, or unset the variable."
        ) from fault
