"""Which laws hold: asked of the champion, of a version, of a saved model, or of anybody's `nn.Module`.

Called by `flows.cli_verify`. Nothing is written: neither lake nor registry nor MLflow run.
"""

import logging
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from models.causality import Finding
from pipeline.errors import DataError, ModelError, StoreError
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.schemas import EPOCH
from pipeline.settings import Settings, TrainSettings
from pipeline.store.lake import Lake
from pipeline.tracking.registry import champion, load_version
from pipeline.tracking.saved_model import CARD, LoadedModel, load_model
from pipeline.train.train import load_panel
from pipeline.verify.forecaster import findings_of_forecaster
from pipeline.verify.laws import LAWS
from pipeline.verify.made_up import made_up_panel, noise_covariates
from pipeline.verify.module import find_module, findings_of_module
from pipeline.verify.training import crystal_ball, no_skill_on_noise, small_config, small_settings, split_gap_of_batches

logger = logging.getLogger(__name__)

NUM_TRAININGS = 5
MADE_UP_SERIES, MADE_UP_TICKS = 3, 2000


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """Which laws hold.

    Attributes:
        subject: what was asked.
        findings: one for each law, in their order.
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether no law is broken."""
        return not self.broken

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings of broken laws."""
        return tuple(finding for finding in self.findings if finding.verdict == "broken")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, with the meaning of each law and what to do about a broken one."""
        laws = []
        for finding in self.findings:
            law = LAWS[finding.law]
            remedy = law.remedy if finding.verdict == "broken" else None
            laws.append({"name": law.name, **asdict(finding), "meaning": law.meaning, "what_to_do": remedy})
        return {"subject": self.subject, "holds": self.holds, "laws": laws}


def verify(settings: Settings, subject: str | None, *, max_seconds: float) -> VerifyReport:
    """Ask the laws 1 to 7 and 10.

    Args:
        settings: where lake and registry are; neither is needed for a saved model or a module.
        subject: a version of the registered model, the folder of a saved one, `package.module:name` or `file.py:name`; None
            for the champion.
        max_seconds: for the short trainings of the laws 5 and 6, all together.

    Raises:
        ModelError: when the subject is not there, or does not offer what is required.
        StoreError: when the registry cannot be read.
    """
    if subject is not None and ":" in subject:
        findings = findings_of_module(find_module(subject), max_seconds=max_seconds)
        return VerifyReport(subject=subject, findings=_in_order(findings))
    model, panel = _model(settings, subject)
    findings = findings_of_forecaster(model.model)
    config = small_config(model.card.config)
    training = small_settings(_train_settings(model), max_seconds / NUM_TRAININGS)
    findings += [no_skill_on_noise(config, training), crystal_ball(config, training), _split(model, panel)]
    name = f"model version {model.version}" if model.version != "file" else f"saved model {subject}"
    return VerifyReport(subject=name, findings=_in_order(findings))


def _in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.law))


def _model(settings: Settings, subject: str | None) -> tuple[LoadedModel, Panel | None]:
    """Return the model asked about, and the panel it was trained on where the lake is there."""
    if subject is not None and (Path(subject) / CARD).is_file():
        return load_model(Path(subject)), None
    if subject is not None and not subject.isdigit():
        raise ModelError(
            f"tidecast verify requires a version, the folder of a saved model, package.module:name or file.py:name; got {subject!r}. "
            "Give none for the champion."
        )
    model = champion(settings) if subject is None else load_version(settings, subject)
    try:
        as_trained = settings.model_copy(update={"train": _train_settings(model)})
        panel = load_panel(as_trained, Lake(settings.lake), model.card.series_patterns)
    except (DataError, StoreError) as error:
        logger.info("no panel to ask law 10 of, so a made-up one: %s", error)
        return model, None
    return model, panel


def _train_settings(model: LoadedModel) -> TrainSettings:
    """Return the settings that a model was trained with; the defaults where its card records none that this tidecast knows."""
    try:
        return TrainSettings.model_validate(model.card.settings.get("train", {}))
    except pydantic.ValidationError as error:
        logger.info("card records settings of another tidecast: %s", error)
        return TrainSettings()


def _split(model: LoadedModel, panel: Panel | None) -> Finding:
    """Ask law 10 of the recorded borders and of the batches that training makes with them."""
    card = model.card
    if card.validation_end <= card.train_end:
        seen = f"the card records training up to {card.train_end:%Y-%m-%d %H:%M} and validation up to {card.validation_end:%Y-%m-%d %H:%M}"
        return Finding(law=10, verdict="broken", seen=seen)
    interval = timedelta(seconds=card.config.sample_interval_s)
    split = Split(card.train_end, card.validation_end)
    if panel is not None:
        return split_gap_of_batches(panel, split, card.config, _train_settings(model))
    before = max(MADE_UP_TICKS, 4 * card.config.horizon)
    validation_end = min(card.validation_end, card.train_end + MADE_UP_TICKS * interval)
    num_ticks = before + (validation_end - card.train_end) // interval
    first_tick = (card.train_end - EPOCH) // interval - before
    values_TB = np.random.default_rng(0).normal(size=(num_ticks, MADE_UP_SERIES)).cumsum(0)
    covariates = noise_covariates(card.config, num_ticks, MADE_UP_SERIES)
    made_up = made_up_panel(values_TB, interval, covariates, first_tick=first_tick)
    finding = split_gap_of_batches(made_up, Split(card.train_end, validation_end), card.config, _train_settings(model))
    return replace(finding, seen=f"{finding.seen} (made-up readings: its own are not here)")
