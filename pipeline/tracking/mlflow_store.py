"""The way to MLflow: one quiet client for the store the settings name, and errors that say what to do.

Called by `pipeline.tracking.registry` and `pipeline.tracking.run`. MLflow is imported in the functions: it takes a second.
"""

import fcntl
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.errors import SettingsError, StoreError
from pipeline.settings import Settings
from pipeline.tracking.provenance import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")  # the file store is refused by MLflow itself
DEFAULTS = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 7, the default, is four minutes of silence before a server is called dead
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a uv.lock in the working folder is not the model's
}
TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}  # the page opens on runs to compare, not on traces of agents


def quieten() -> None:
    """Keep MLflow off the network and the terminal, unless the environment says otherwise; never let it unpickle."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    if logging.getLogger("mlflow").level == logging.INFO:  # imported by somebody else before us
        logging.getLogger("mlflow").setLevel(logging.WARNING)


def local_database(settings: Settings) -> Path | None:
    """Return the file of a SQLite store; None where the store is a server or another database."""
    parts = urlsplit(settings.tracking_uri)
    return Path(parts.path[1:]) if parts.scheme == "sqlite" else None


def artifact_location(settings: Settings) -> str | None:
    """Return the URI of the folder where a local store keeps artifacts; None where the server decides."""
    database = local_database(settings)
    folder = settings.artifacts_dir
    if folder is None and database is not None:
        folder = database.resolve().parent / "artifacts"
    return None if folder is None else folder.as_uri()


def connect(settings: Settings) -> "MlflowClient":
    """Return a client of the settings' store; a SQLite store is created where there is none.

    Raises:
        SettingsError: when the tracking URI is not one of a database or a server.
        StoreError: when the store cannot be opened.
    """
    uri = settings.tracking_uri
    if urlsplit(uri).scheme.partition("+")[0] not in SCHEMES:
        raise SettingsError(
            f"tracking.uri requires a database or a server ({', '.join(f'{s}://' for s in SCHEMES)}); got {uri!r}. "
            "Leave it out for a SQLite store beside the lake."
        )
    quieten()
    with store_errors(settings), _sole_creator(local_database(settings)), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's use of SQLAlchemy, when it is first imported
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _sole_creator(database: Path | None) -> Iterator[None]:
    """Hold a lock file while a SQLite store may be created: two MLflow processes that do it at once break each other's migration."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA schema_version")  # MLflow would retry on a damaged file for two minutes
        yield


@contextmanager
def store_errors(settings: Settings) -> Iterator[None]:
    """Turn what MLflow and its database raise into one sentence.

    Raises:
        StoreError: naming the store and what it answered.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:  # ImportError: no driver for the database
        store = without_password(settings.tracking_uri)
        said = str(error).strip().split("\n")[0].replace(settings.tracking_uri, store)
        raise StoreError(
            f"The MLflow store requires a working {store}; got {type(error).__name__}: {said}. "
            "Check tracking.uri, that the server is up or the folder writable, and that the database has its driver."
        ) from error


def experiment_id(client: "MlflowClient", settings: Settings) -> str:
    """Return the id of the settings' experiment, which is created where there is none, and whose new artifacts go where the store is now.

    Raises:
        StoreError: when the experiment was deleted.
        sqlite3.Error: when the store cannot be written.
        mlflow.exceptions.MlflowException: when the store cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    name = settings.tracking.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            created: str = client.create_experiment(name, artifact_location=artifact_location(settings), tags=TRAINING_VIEW)
        except MlflowException:  # another process was quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
        else:
            return created
    if found.lifecycle_stage != "active":
        raise StoreError(
            f"tracking.experiment requires an active experiment; got {name!r}, which was deleted. "
            f"Run `mlflow experiments restore --experiment-id {found.experiment_id}` or choose another name."
        )
    _bring_home(settings, str(found.experiment_id), found.artifact_location)
    return str(found.experiment_id)


def _bring_home(settings: Settings, experiment: str, location: str) -> None:
    """Let the experiment of a lake that was moved or copied keep its new artifacts here, and not in the folder it came from.

    MLflow stores absolute locations and has no call that changes one. Runs of before keep theirs: their artifacts may still be there.
    """
    folder, database, here = settings.artifacts_dir, local_database(settings), artifact_location(settings)
    if folder is None or database is None or location == here or not location.endswith(f"/{folder.parent.name}/{folder.name}"):
        return  # a location that somebody chose stays
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here, int(experiment)))


@contextmanager
def bound(settings: Settings) -> Iterator[None]:
    """Make the settings' store MLflow's global one for a moment: registering a logged model looks it up there."""
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(settings.tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None, which takes it back, is missing in the annotation
