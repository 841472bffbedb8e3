"""Prefect's own settings, read before anything of it is used: Prefect meets a wrong one with a traceback in the middle of its import.

Called by `flows.orchestrated` and for `serve`.
"""

import io
import os
import sys
import tempfile
from contextlib import redirect_stderr

from pydantic import ValidationError

from pipeline.errors import SettingsError, first_line


def require_valid() -> None:
    """Import Prefect, and refuse to go on where its variables, profiles or files say what it cannot use.

    Raises:
        SettingsError: naming the variable, where it is one.
    """
    with redirect_stderr(io.StringIO()) as said:  # Prefect prints the fault too, on several lines
        try:
            from prefect.settings import get_current_settings

            get_current_settings()
        except ValueError as error:  # a wrong value, or a file that is no TOML
            raise SettingsError(f"Prefect requires settings that it can read; got {_fault(error)}. Correct it, or unset it.") from error
    sys.stderr.write(said.getvalue())


def require_home() -> None:
    """Make the folder in which Prefect's temporary server keeps its database: without it Prefect starts that server again without end.

    Raises:
        SettingsError: where it cannot be made or written, as for a service without a home.
    """
    from prefect.settings import PREFECT_HOME

    home = PREFECT_HOME.value()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise SettingsError(
            f"Prefect requires a folder for its database; got {home} ({error.strerror}). Set PREFECT_HOME, or use --no-orchestrator."
        ) from error


def _fault(error: ValueError) -> str:
    """Return what is wrong, and of which variable: pydantic names the field alone."""
    if not isinstance(error, ValidationError):
        return f"a file of them that is no TOML ({first_line(error)})"
    first = error.errors(include_url=False)[0]
    field, given = str(first["loc"][-1]), first["input"]
    of_field = [name for name in os.environ if name.startswith("PREFECT_") and name.endswith(f"_{field.upper()}")]
    named = [name for name in of_field if os.environ[name] == given]
    return f"{named[0] if named else f'{error.title}.{field}'}: {first['msg']}"
