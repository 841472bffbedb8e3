"""From observations to a registered model, in one tracked run.

Called by `flows.train`. The weights see what lies before `train_end`, early stopping looks at origins up to
`validation_end`, and nothing reads what comes after but the score of the test period. Training reads every value as it is known
today; the scores, like those of a backtest, are of forecasts that read what was known when each tick closed.
"""

import logging
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from models.forecaster import CausalForecaster
from pipeline.clock import Clock
from pipeline.errors import DataError
from pipeline.evaluate.illustrate import illustrate
from pipeline.evaluate.scoring import METRICS, MODEL, Period, Scoreboard, score_forecaster
from pipeline.prepare.join_covariates import chosen_names, join_covariates
from pipeline.prepare.on_time import known_on_time
from pipeline.prepare.sequences import Panel, match_series, to_panel
from pipeline.prepare.splits import Split, split_panel
from pipeline.schemas import Observations, Readings
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from pipeline.tracking.model_card import ModelCard, TrainedSeries
from pipeline.tracking.provenance import recorded_settings, source_revision, tidecast_version
from pipeline.tracking.registry import register
from pipeline.tracking.run import Run, tracked_run
from pipeline.tracking.saved_model import save_model
from pipeline.train.fit import FitResult, Progress, fit, forecaster_config

logger = logging.getLogger(__name__)

MAX_SCORED_ORIGINS = 1_000_000  # over all series: enough for a curve by lead, and bounded for a large fleet


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What one training is asked to do, beyond the settings.

    Attributes:
        series: glob patterns; None for every series.
        train_end: last instant the weights may see; None: by the settings' fractions.
        validation_end: last instant early stopping may look at; None: by the fractions.
        promote: make the new version the champion.
    """

    series: tuple[str, ...] | None = None
    train_end: datetime | None = None
    validation_end: datetime | None = None
    promote: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What came of a training.

    Attributes:
        run_id: of the MLflow run.
        model_version: in the registry.
        promoted: whether it is the champion now.
        series: trained on.
        train_end, validation_end, data_end: borders of the periods.
        epochs, best_epoch, num_parameters: of the fit.
        metrics: `validation/…` and `test/…` scores; the latter only where the test period holds an origin.
    """

    run_id: str
    model_version: str
    promoted: bool
    series: int
    train_end: datetime
    validation_end: datetime
    data_end: datetime
    epochs: int
    best_epoch: int
    num_parameters: int
    metrics: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()}

    def to_markdown(self) -> str:
        """Return a summary for people."""
        rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in self.metrics.items())
        return (
            f"Model version {self.model_version} ({'champion' if self.promoted else 'not promoted'}): {self.series} series, "
            f"{self.num_parameters:,} parameters, the weights of epoch {self.best_epoch + 1} of {self.epochs}.\n\n"
            f"Trained to {self.train_end:%Y-%m-%d %H:%M}, validated to {self.validation_end:%Y-%m-%d %H:%M} UTC.\n\n"
            f"| metric | value |\n|---|---|\n{rows}\n"
        )


def train(settings: Settings, request: TrainRequest, clock: Clock, progress: Progress | None = None) -> TrainReport:
    """Train one model on the lake's observations, score it, register it and, if asked, make it the champion.

    Args:
        settings: of the whole pipeline.
        request: series, borders, promotion.
        clock: for the run's and the card's instants.
        progress: told of every epoch.

    Raises:
        DataError: when no series matches or there is too little history.
        StoreError: when lake or registry cannot be read or written.
    """
    lake = Lake(settings.lake)
    versions = {schema.name: lake.version(schema) for schema in (Readings, Observations)}
    panel = load_panel(settings, lake, request.series)
    inputs = known_on_time(panel, lake, settings.ingest.allowed_lateness)
    split = split_panel(panel, settings.train, request.train_end, request.validation_end)
    _require_history(panel, split, settings.train.horizon)
    config = forecaster_config(settings.train, panel.interval, panel.covariates)
    name = f"train {len(panel.series_ids)} series, horizon {config.horizon}"
    with tracked_run(settings, name, clock, input_versions=versions, tags={"role": "train"}) as run:
        run.log_params(config.to_dict(), prefix="model.")
        run.log_params({"train_end": split.train_end.isoformat(), "validation_end": split.validation_end.isoformat()})

        def on_epoch(epoch: int, max_epochs: int, training: float, validation: float) -> None:
            run.log_metrics({"train/pinball": training, "validation/pinball": validation}, step=epoch)
            if progress is not None:
                progress(epoch, max_epochs, training, validation)

        result = fit(panel, split, config, settings.train, on_epoch)
        boards = _score(result.forecaster, inputs, panel, split, calibrate=settings.forecast.calibrate)
        metrics = {f"{period}/{name}": value for period, (_, board) in boards.items() for name, value in _scalars(board).items()}
        _log_scores(run, boards, metrics, result)
        _log_pictures(run, boards, result.forecaster, inputs, panel)
        card = _card(settings, request, panel, split, result, metrics, versions[Observations.name], clock)
        with tempfile.TemporaryDirectory() as scratch:
            save_model(Path(scratch), result.forecaster, card)
            version = register(settings, Path(scratch), clock, run_id=run.run_id, promote=request.promote)
        report = TrainReport(
            run_id=run.run_id,
            model_version=version,
            promoted=request.promote,
            series=len(panel.series_ids),
            train_end=split.train_end,
            validation_end=split.validation_end,
            data_end=panel.end,
            epochs=len(result.curves),
            best_epoch=result.best_epoch,
            num_parameters=result.num_parameters,
            metrics=metrics,
        )
        run.log_text(report.to_markdown(), "summary.md")
    logger.info("trained version=%s run=%s epochs=%d", version, run.run_id, len(result.curves))
    return report


def load_panel(settings: Settings, lake: Lake, series: tuple[str, ...] | None) -> Panel:
    """Return the newest revision of every observation of the series that match, with the covariates that the settings name.

    Raises:
        DataError: when no series matches, or nothing is known of a covariate.
    """
    catalog, covariates = Catalog(settings.state_dir), settings.train.covariates
    grids = match_series(catalog.series(), series, {*covariates.past, *covariates.future})
    panel = to_panel(read_observations(lake, series=grids["series_id"].to_list()), grids)
    names = chosen_names(covariates.past, covariates.future, covariates.static, panel, catalog)
    lateness = settings.ingest.allowed_lateness
    panel = join_covariates(panel, names, lake, catalog, horizon=settings.train.horizon, allowed_lateness=lateness)
    _require_known(panel)
    return panel


def _require_history(panel: Panel, split: Split, horizon: int) -> None:
    """Refuse a horizon that no series could be trained on, before minutes are spent on it."""
    longest = int(split.train_rows(panel).max())
    if horizon >= longest:
        raise DataError(
            f"A training requires a series with more ticks before {split.train_end:%Y-%m-%d %H:%M} UTC than its horizon of {horizon}; "
            f"got {longest}. Lower --horizon, or ingest more history."
        )


def _require_known(panel: Panel) -> None:
    """Refuse a covariate of which nothing was known in time: a misspelt name, or plans that say not when they were announced."""
    if panel.covariates is None:
        return
    names, past_TBP, future_SBU = panel.covariates.names, panel.covariates.past_TBP, panel.covariates.future_SBU
    for kind, metrics, values in (("past", names.past, past_TBP), ("known-future", names.future, future_SBU)):
        unknown = [metric for v, metric in enumerate(metrics) if np.isnan(values[..., v]).all()]
        if unknown:
            raise DataError(
                f"A {kind} covariate requires values that were known in time for the devices trained on; got none of {', '.join(unknown)}. "
                "Correct the name, or say when they could first be known (--received-at, and --known-ahead for plans)."
            )


def _score(
    forecaster: CausalForecaster, inputs: Panel, truth: Panel, split: Split, *, calibrate: bool
) -> dict[str, tuple[Period, Scoreboard]]:
    """Score the validation period, and the test period where it holds an origin."""
    borders = {"validation": (split.train_end, split.validation_end), "test": (split.validation_end, truth.end)}
    boards = {}
    for name, (start, end) in borders.items():
        num_origins = ((end - start) // truth.interval - forecaster.config.horizon) * len(truth.series_ids)
        period = Period(start=start, end=end, train_end=split.train_end, stride=max(1, num_origins // MAX_SCORED_ORIGINS))
        try:
            boards[name] = period, score_forecaster(forecaster, inputs, truth, period, calibrate=calibrate)
        except DataError as error:
            logger.warning("%s period not scored: %s", name, error)
    return boards


def _scalars(board: Scoreboard) -> dict[str, float]:
    row = board.overall().filter(model=MODEL).row(0, named=True)
    scores = {name: float(row[name]) for name in METRICS if row[name] is not None}
    return scores | {"skill_wql_over_seasonal_naive": board.skill("wql"), "skill_mae_over_seasonal_naive": board.skill("mae")}


def _log_scores(run: Run, boards: dict[str, tuple[Period, Scoreboard]], metrics: dict[str, float], result: FitResult) -> None:
    run.log_metrics(metrics)
    run.log_params({"num_parameters": result.num_parameters, "best_epoch": result.best_epoch})
    for name, (_, board) in boards.items():
        run.log_by_lead({f"{name}_by_lead/{metric}": values for metric, values in board.by_lead().items()})
        run.log_json(board.by_step().to_dicts(), f"{name}/by_lead.json")
        run.log_json(board.overall().to_dicts(), f"{name}/overall.json")


def _log_pictures(
    run: Run, boards: dict[str, tuple[Period, Scoreboard]], forecaster: CausalForecaster, inputs: Panel, truth: Panel
) -> None:
    for name, (period, board) in boards.items():
        with tempfile.TemporaryDirectory() as scratch:
            for picture in illustrate(board, forecaster, inputs, truth, period, Path(scratch)):
                run.log_artifact(picture, name)


def _card(
    settings: Settings,
    request: TrainRequest,
    panel: Panel,
    split: Split,
    result: FitResult,
    metrics: dict[str, float],
    observations_version: int,
    clock: Clock,
) -> ModelCard:
    return ModelCard(
        config=result.forecaster.config,
        series=TrainedSeries.of(panel.series_ids),
        series_patterns=request.series,
        train_end=split.train_end,
        validation_end=split.validation_end,
        data_end=panel.end,
        observations_version=observations_version,
        source=source_revision(),
        metrics=metrics,
        created_at=clock.now(),
        tidecast_version=tidecast_version(),
        seed=settings.train.seed,
        settings=recorded_settings(settings),
    )
