"""A model on disk: a folder of two files, `model.safetensors`, the weights, and `model.json`, the card.

No pickle, so a model from a stranger can be loaded without running anything of theirs. Called by `pipeline.train`, which saves,
`pipeline.tracking.registry`, and whoever forecasts with a model from a folder; nothing here imports MLflow or Lightning.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from models.forecaster import CausalForecaster
from pipeline.errors import ModelError
from pipeline.tracking.model_card import ModelCard

WEIGHTS, CARD = "model.safetensors", "model.json"
FORMAT_VERSION = 1


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
