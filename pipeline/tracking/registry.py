"""Trained models: saved as safetensors and JSON, registered in MLflow, and the champion that serves.

A saved model is a folder of two files: `model.safetensors`, the weights, and `model.json`, the card. No pickle, so a model
from a stranger can be loaded without running anything of theirs. Called by `pipeline.train`, which registers, and by
`pipeline.forecast` and `pipeline.evaluate`, which load the champion; nothing here imports Lightning.
"""

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from models.forecaster import CausalForecaster
from pipeline.clock import Clock
from pipeline.errors import ModelError
from pipeline.settings import Settings
from pipeline.tracking.mlflow_store import bound, connect, experiment_id, local_database, store_errors
from pipeline.tracking.model_card import ModelCard
from pipeline.tracking.packaging import write_package
from pipeline.tracking.provenance import flattened

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

WEIGHTS, CARD = "model.safetensors", "model.json"
FORMAT_VERSION = 1
CHAMPION, PREVIOUS_CHAMPION = "champion", "previous_champion"


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to forecast.

    Attributes:
        model: in evaluation mode, on the CPU.
        card: saved with it.
        version: in the registry ("3"); of a folder that is in none, "file".
        weights_sha256: of the weights' file.
    """

    model: CausalForecaster
    card: ModelCard
    version: str
    weights_sha256: str

    @property
    def identity(self) -> str:
        """The version and the start of the weights' hash: a registry that is made anew counts from 1 again, weights do not."""
        return f"{self.version}-{self.weights_sha256[:8]}"


def save_model(folder: Path, model: CausalForecaster, card: ModelCard) -> None:
    """Write a model's two files, the card last: a save that was cut short is seen when it is loaded.

    Args:
        folder: made where it does not exist; a model that is there already is replaced.
        model: whose `state_dict` is saved.
        card: whose configuration must be the model's.

    Raises:
        ModelError: when the card describes another model.
    """
    if card.config != model.config:
        raise ModelError(f"save_model requires the card of the model itself; got {card.config} for {model.config}. Pass model.config on.")
    folder.mkdir(parents=True, exist_ok=True)
    weights = safetensors.save({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()})
    record = {"format_version": FORMAT_VERSION, "weights_sha256": hashlib.sha256(weights).hexdigest(), "card": card.to_dict()}
    _replace(folder / WEIGHTS, weights)
    _replace(folder / CARD, json.dumps(record, indent=2, allow_nan=False).encode())


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def load_model(folder: Path, version: str | None = None) -> LoadedModel:
    """Load a saved model.

    Args:
        folder: that `save_model` wrote.
        version: in the registry, where it has one.

    Raises:
        ModelError: when a file is missing, damaged or made by another version of tidecast.
    """
    card, expected_sha = _read_card(folder / CARD)
    content = _read(folder / WEIGHTS)
    sha = hashlib.sha256(content).hexdigest()
    if sha != expected_sha:
        raise ModelError(
            f"A saved model requires the weights its card was written with; got {folder / WEIGHTS} of {len(content)} bytes with SHA-256 "
            f"{sha[:12]} instead of {expected_sha[:12]}. Copy the whole folder again, or train again."
        )
    try:
        weights: dict[str, Tensor] = safetensors.load(content)
    except SafetensorError as error:
        raise ModelError(f"A saved model requires weights in safetensors form; got {folder / WEIGHTS}: {error}. Train again.") from error
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: they must not move the caller's seed
        model = CausalForecaster(card.config)
    _check_shapes(model, weights, folder)
    model.load_state_dict(weights, assign=True)  # keeps the saved dtype
    model.to(model.dtype)  # what is not saved, but made from the configuration, follows
    return LoadedModel(model.eval(), card, version or "file", sha)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"A saved model requires the files {WEIGHTS} and {CARD}; got {error.strerror} for {path}. Check the folder, or train again."
        ) from error


def _read_card(path: Path) -> tuple[ModelCard, str]:
    """Return the card and the SHA-256 of the weights that belong to it."""
    try:
        record = json.loads(_read(path))
        found = record["format_version"]
        if found == FORMAT_VERSION:
            return ModelCard.from_dict(record["card"]), str(record["weights_sha256"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # text that does not parse, a field of another form
        raise ModelError(
            f"A saved model requires a card that save_model wrote; got {path}: {type(error).__name__}: {error}. "
            "Load it with the tidecast that saved it, or train again."
        ) from error
    raise ModelError(
        f"This tidecast requires saved models of format {FORMAT_VERSION}; got {found!r} in {path}. "
        "Load it with the tidecast that saved it, or train again."
    )


def _check_shapes(model: CausalForecaster, weights: dict[str, Tensor], folder: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if found == expected:
        return
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    listed = "; ".join(f"{name}: {found.get(name, 'missing')} instead of {expected.get(name, 'nothing')}" for name in wrong[:3])
    raise ModelError(
        f"A saved model requires the {len(expected)} tensors its card describes; got {len(wrong)} that differ in {folder / WEIGHTS} "
        f"({listed}). Load it with the tidecast that saved it, or train again."
    )


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


def require_champion(settings: Settings) -> str:
    """Return the version of the serving model, without loading it.

    Raises:
        ModelError: when there is no champion.
        StoreError: when the registry cannot be read.
    """
    version = champion_version(settings)
    if version is None:
        raise ModelError(
            f"A forecast requires a trained model; got no champion of {settings.tracking.model_name!r} in the registry. "
            "Run `tidecast train` first."
        )
    return version


def champion(settings: Settings) -> LoadedModel:
    """Load the serving model: the alias is resolved to a version once, and that version is what is loaded.

    Raises:
        ModelError: when there is no champion, or its files are gone or damaged.
        StoreError: when the registry cannot be read.
    """
    return load_version(settings, require_champion(settings))


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
