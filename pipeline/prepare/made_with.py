"""What each series' observations were made with: a small JSON file of the state folder. Called by `regularise.py`."""

import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.store.state_files import sync

logger = logging.getLogger(__name__)

FILE_NAME = "aggregations.json"


def recorded_aggregations(state_dir: Path) -> dict[str, str]:
    """Return the aggregation by series; empty where there is no record, or it cannot be read and must be made anew."""
    path = state_dir / FILE_NAME
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # a power failure, or somebody's hand
        logger.warning("the record of aggregations is made anew: path=%s reason=%s", path, error)
        return {}
    return found if isinstance(found, dict) else {}


def record_aggregations(state_dir: Path, made_with: Mapping[str, str]) -> None:
    """Record the aggregation by series, on disk when this returns.

    Raises:
        StoreError: when the state folder cannot be written.
    """
    path = state_dir / FILE_NAME
    if path.exists() and recorded_aggregations(state_dir) == made_with:
        return
    partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")  # runs may race, in threads too
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(made_with, file, indent=0)
            file.flush()
            os.fsync(file.fileno())  # else a power failure leaves a file of no bytes under the good one's name
        partial.replace(path)
        sync(state_dir)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            f"regularise requires a state folder that can be written; got {path}: {error}. Check its permissions and the space left."
        ) from error
