"""The registry of models in MLflow: versions, and the champion that serves.

Called by `pipeline.train`, which registers, and by `pipeline.forecast` and `pipeline.evaluate`, which load the champion; nothing here
imports Lightning.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.clock import Clock
from pipeline.errors import ModelError
from pipeline.settings import Settings
from pipeline.tracking.mlflow_store import bound, connect, experiment_id, local_database, store_errors
from pipeline.tracking.model_card import ModelCard
from pipeline.tracking.packaging import write_package
from pipeline.tracking.provenance import flattened
from pipeline.tracking.saved_model import CARD, WEIGHTS, LoadedModel, load_model

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

CHAMPION, PREVIOUS_CHAMPION = "champion", "previous_champion"


def register(settings: Settings, folder: Path, clock: Clock, *, run_id: str | None = None, promote: bool = True) -> str:
    """Make a saved model a version of the registered model.

    Args:
        settings: where the registry is and what the model is called.
        folder: that `save_model` wrote.
        clock: for the promotion record.
        run_id: of the MLflow run that trained it.
        promote: make it the champion.

    Returns:
        The version in the registry.

    Raises:
        ModelError: when the folder holds no model that can be loaded.
        StoreError: when the registry cannot be written.
    """
    loaded = load_model(folder)  # what cannot be loaded must not be registered
    client = connect(settings)
    with store_errors(settings), bound(settings):
        model_id = _log_model(client, settings, folder, loaded, run_id)
        version = _create_version(client, settings.tracking.model_name, model_id, loaded.card, run_id)
    logger.info("registered model=%s version=%s run=%s", settings.tracking.model_name, version, run_id)
    if promote:
        promote_version(settings, version, clock)
    return version


def _log_model(client: "MlflowClient", settings: Settings, folder: Path, loaded: LoadedModel, run_id: str | None) -> str:
    """Upload the model in MLflow's form, as an output of its run, and return MLflow's id of it."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    config = loaded.card.config
    logged = client.create_logged_model(
        experiment_id(client, settings),
        name="forecaster",
        source_run_id=run_id,
        params=flattened(config.to_dict()),
        model_type="forecaster",
    )
    files = {"weights": folder / WEIGHTS, "card": folder / CARD}
    record = Model(artifact_path=logged.artifact_location, model_uuid=logged.model_id, model_id=logged.model_id, run_id=run_id)
    with tempfile.TemporaryDirectory() as scratch:
        write_package(Path(scratch) / "model", files, config, record)
        client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    if run_id is not None:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _create_version(client: "MlflowClient", name: str, model_id: str, card: ModelCard, run_id: str | None) -> str:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        "train_end": card.train_end.isoformat(),
        "data_end": card.data_end.isoformat(),
        "observations_version": str(card.observations_version),
        "git_sha": str(card.source.sha),
        "tidecast_version": card.tidecast_version,
    }
    version = client.create_model_version(name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id).version
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([{"name": name, "version": version}])})
    return str(version)


def promote_version(settings: Settings, version: str, clock: Clock) -> None:
    """Make a version the champion and write down when, and what it took over from.

    MLflow keeps no history of aliases, so the version is tagged `promoted_at` and `promoted_from`, and the model itself
    `champion.<instant>` for every change. The alias `previous_champion` is the way back: to roll back, promote it.

    Raises:
        ModelError: when there is no such version.
        StoreError: when the registry cannot be written.
    """
    name, client = settings.tracking.model_name, connect(settings)
    with store_errors(settings):
        _require_version(client, name, version)
        before = _version_of(client, name, CHAMPION)
        if before == version:
            return
        now = clock.now()
        client.set_registered_model_tag(name, f"champion.{now:%Y-%m-%dT%H:%M:%S.%fZ}", version)
        client.set_model_version_tag(name, version, "promoted_at", now.isoformat())
        client.set_model_version_tag(name, version, "promoted_from", before or "none")
        if before is not None:
            client.set_registered_model_alias(name, PREVIOUS_CHAMPION, before)
        client.set_registered_model_alias(name, CHAMPION, version)
    logger.info("promoted model=%s version=%s from=%s", name, version, before)


def _version_of(client: "MlflowClient", name: str, alias: str) -> str | None:
    """Return the version an alias points at; None where there is no such alias or model."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no model; no alias
            return None
        raise


def _require_version(client: "MlflowClient", name: str, version: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # none of that number; not a number
            raise
        raise ModelError(
            f"The registry requires one of the versions of {name!r}; got {version!r}. `tidecast ui` shows which there are."
        ) from error


def champion_version(settings: Settings) -> str | None:
    """Return the version of the serving model, without loading it; None where there is none.

    Raises:
        StoreError: when the registry cannot be read.
    """
    database = local_database(settings)
    if database is not None and not database.is_file():
        return None  # asking an absent store would make one
    client = connect(settings)
    with store_errors(settings):
        return _version_of(client, settings.tracking.model_name, CHAMPION)


def champion(settings: Settings) -> LoadedModel:
    """Load the serving model: the alias is resolved to a version once, and that version is what is loaded.

    Raises:
        ModelError: when there is no champion, or its files are gone or damaged.
        StoreError: when the registry cannot be read.
    """
    version = champion_version(settings)
    if version is None:
        raise ModelError(
            f"A forecast requires a trained model; got no champion of {settings.tracking.model_name!r} in the registry. "
            "Run `tidecast train` first."
        )
    return load_version(settings, version)


def load_version(settings: Settings, version: str) -> LoadedModel:
    """Load a version of the registered model.

    Raises:
        ModelError: when there is no such version, or its files are gone or damaged.
        StoreError: when the registry cannot be read.
    """
    client, name = connect(settings), settings.tracking.model_name
    with store_errors(settings):
        _require_version(client, name, version)
        uri = _moved_with_the_lake(settings, client.get_model_version_download_uri(name, version))
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = download_artifacts(f"{uri}/artifacts", dst_path=scratch, tracking_uri=settings.tracking_uri)
        except (MlflowException, OSError) as error:
            raise ModelError(
                f"Version {version} of {name!r} requires its files at {uri}; got {' '.join(str(error).split())} "
                "Put them back, or promote another version."
            ) from error
        return load_model(Path(folder), version)


def _moved_with_the_lake(settings: Settings, uri: str) -> str:
    """Return where a version's files are now: MLflow stores absolute places, and a lake that carries its own store is moved or copied."""
    folder = settings.artifacts_dir
    _, found, below = uri.partition(f"/{folder.parent.name}/{folder.name}/") if folder is not None else ("", "", "")
    here = folder / below if folder is not None and found else None
    return here.as_uri() if here is not None and here.exists() else uri
