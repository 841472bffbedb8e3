"""Environment defaults: nothing phones home, Prefect and MLflow stay quiet, and a slow machine may take its time to start.

Prefect and MLflow read their environment when they are imported, so `flows/__init__.py` calls `hush` before any module of ours can import
them. A variable that the user has set is left alone.
"""

import os

DEFAULTS = {
    # Three switches, because no single one stops both: Prefect's server ignores DO_NOT_TRACK, and MLflow wants the word "true".
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 13 further processes that a page of runs does not need
    # Without an API address Prefect starts a server of its own; its default of 20 s is too short on a busy two-core machine.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # the page of a run still shows INFO
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_PROMPT": "false",
    # A tick is too little work to share: one pass over ETTh1 takes 0.5 s in one thread, 3.7 s in two, 54 s in two on a busy machine.
    "OMP_NUM_THREADS": "1",
}


def hush() -> None:
    """Set each default that the environment does not set already."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
