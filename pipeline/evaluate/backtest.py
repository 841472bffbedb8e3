"""The backtest: the live engine over past origins, fed with what was known when each tick closed, scored with what is known now.

Called by `flows.backtest`. A reading that came late or was corrected later is not in the inputs of an earlier origin, only in
the truth it is scored with (law 9).
"""

import logging
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clock import Clock, require_aware
from pipeline.errors import DataError
from pipeline.evaluate.baselines import MIN_HISTORY, statistical
from pipeline.evaluate.illustrate import illustrate
from pipeline.evaluate.scoring import METRICS, MODEL, Period, Scoreboard, origin_groups, reference, score_forecaster, season_of
from pipeline.prepare.covariates import CovariateNames
from pipeline.prepare.join_covariates import join_covariates
from pipeline.prepare.on_time import known_on_time
from pipeline.prepare.sequences import Panel, serving_series, to_panel
from pipeline.schemas import Observations
from pipeline.settings import Settings
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.observations import read_observations
from pipeline.tracking.registry import champion
from pipeline.tracking.run import tracked_run
from pipeline.tracking.saved_model import LoadedModel

logger = logging.getLogger(__name__)

STATISTICAL_ORIGINS = 8  # of each series: a fit takes a tenth of a second to a second


@dataclass(frozen=True, kw_only=True)
class BacktestRequest:
    """What to backtest.

    Attributes:
        start: first origin; None: where the model's validation period ended.
        end: last instant that may be a target; None: the end of the data.
        stride: ticks between origins.
        statistical: whether to fit a statistical baseline too (the extra `stats`), at some of the origins.
        budget: for all of these fits.
    """

    start: datetime | None = None
    end: datetime | None = None
    stride: int = 1
    statistical: bool = False
    budget: timedelta = timedelta(seconds=60)

    def __post_init__(self) -> None:
        """Refuse a stride that goes nowhere, and instants that are naive or not in order.

        Raises:
            SettingsError: for a naive instant.
            DataError: for a stride below 1, or an end before the start.
        """
        require_aware("A backtest", start=self.start, end=self.end)
        if self.start is not None and self.end is not None and self.end < self.start:
            raise DataError(f"A backtest requires a start before its end; got {self.start} and {self.end}. Correct them.")
        if self.stride < 1:
            raise DataError(f"A backtest requires a stride of at least 1 tick; got {self.stride}. Give 1 for every origin.")


@dataclass(frozen=True, kw_only=True)
class BacktestReport:
    """Scores of the champion beside its baselines.

    Attributes:
        model_version: that was scored.
        run_id: of the MLflow run that holds scores and pictures.
        start, end: the period.
        series: scored.
        origins: forecasts scored, over all series.
        model_seconds: of the engine alone.
        overall: scores over all steps by forecaster; errors, CRPS and widths in standard deviations of each series'
            training part, wQL in the metrics' units.
        by_lead: the same by step.
        notes: what a reader must know to trust the figures.
        pictures: paths of PNG files.
    """

    model_version: str
    run_id: str
    start: datetime
    end: datetime
    series: int
    origins: int
    model_seconds: float
    overall: dict[str, dict[str, float]]
    by_lead: list[dict[str, Any]]
    notes: tuple[str, ...]
    pictures: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        plain = asdict(self) | {"start": self.start.isoformat(), "end": self.end.isoformat()}
        return plain | {"pictures": [str(path) for path in self.pictures]}

    def to_markdown(self) -> str:
        """Return a summary for people."""
        rows = "\n".join(
            f"| {model} | " + " | ".join(f"{scores[name]:.4f}" if name in scores else "" for name in METRICS) + " |"
            for model, scores in self.overall.items()
        )
        notes = "".join(f"\n- {note}" for note in (*self.notes, *(f"picture: {path}" for path in self.pictures)))
        return (
            f"Model version {self.model_version}: {self.origins:,} forecasts of {self.series} series, "
            f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC, {self.model_seconds:.2f} s of model time.\n\n"
            f"Errors, crps and widths are in standard deviations of each series; mase, rmsse and wql are ratios.\n\n"
            f"| model | {' | '.join(METRICS)} |\n|{'---|' * (len(METRICS) + 1)}\n{rows}\n{notes}\n"
        )


def backtest(settings: Settings, request: BacktestRequest, clock: Clock) -> BacktestReport:
    """Score the champion over past origins.

    Args:
        settings: where lake and registry are.
        request: which origins.
        clock: for the run and the budget of statistical fits.

    Raises:
        ModelError: when there is no champion.
        DataError: when the period holds no origin.
    """
    lake, model = Lake(settings.lake), champion(settings)
    inputs, truth, units = _panels(settings, lake, model)
    period, notes = _period(request, model, truth)
    name = f"backtest version {model.version}"
    tags = {"role": "backtest", "model_version": model.version}
    with tracked_run(settings, name, clock, input_versions={Observations.name: lake.version(Observations)}, tags=tags) as run:
        board = score_forecaster(model.model, inputs, truth, period, calibrate=settings.forecast.calibrate)
        if request.statistical:
            notes.append(_add_statistical(board, model, inputs, truth, period, request.budget, clock))
        folder = settings.state_dir.parent / "reports" / f"backtest-version-{model.version}"
        pictures = illustrate(board, model.model, inputs, truth, period, folder, units)
        overall = {row.pop("model"): {k: v for k, v in row.items() if v is not None} for row in board.overall().to_dicts()}
        run.log_metrics({f"backtest/{metric}": value for metric, value in overall[MODEL].items()})
        run.log_by_lead({f"backtest_by_lead/{metric}": values for metric, values in board.by_lead().items()})
        report = BacktestReport(
            model_version=model.version,
            run_id=run.run_id,
            start=period.start,
            end=period.end,
            series=len(inputs.series_ids),
            origins=board.num_origins,
            model_seconds=board.model_seconds,
            overall=overall,
            by_lead=board.by_step().to_dicts(),
            notes=tuple(notes),
            pictures=tuple(pictures),
        )
        for picture in pictures:
            run.log_artifact(picture, "backtest")
        run.log_text(report.to_markdown(), "backtest/summary.md")
    logger.info("backtest model=%s origins=%d model_seconds=%.2f", model.version, board.num_origins, board.model_seconds)
    return report


def _panels(settings: Settings, lake: Lake, model: LoadedModel) -> tuple[Panel, Panel, dict[str, str | None]]:
    """Return what was known on time, what is known now, on the same rows, and the units of the series."""
    catalog, config = Catalog(settings.state_dir), model.model.config
    names = CovariateNames(*config.covariate_names)
    fleet = serving_series(catalog.series(), model.card.series_patterns, config.sample_interval_s, names.metrics)
    series = fleet["series_id"].to_list()
    truth = to_panel(read_observations(lake, series=series), fleet)
    lateness = settings.ingest.allowed_lateness
    inputs = known_on_time(truth, lake, lateness)
    inputs = join_covariates(inputs, names, lake, catalog, horizon=config.horizon, allowed_lateness=lateness)
    return inputs, truth, dict(fleet.select("series_id", "unit").iter_rows())


def _period(request: BacktestRequest, model: LoadedModel, truth: Panel) -> tuple[Period, list[str]]:
    """Return the origins asked for, by default those the model has not seen, and what must be said about them."""
    end, start = request.end or truth.end, request.start or model.card.validation_end
    notes = []
    horizon = model.model.config.horizon * truth.interval
    if request.start is None and start + horizon > end:
        start = model.card.train_end
    if start < model.card.train_end:
        notes.append(f"Origins before {model.card.train_end:%Y-%m-%d %H:%M} UTC were trained on: these scores flatter the model.")
    elif start < model.card.validation_end:
        notes.append(f"Origins before {model.card.validation_end:%Y-%m-%d %H:%M} UTC chose the epoch: these scores are validation scores.")
    return Period(start=start, end=end, train_end=min(model.card.train_end, start), stride=request.stride), notes


def _add_statistical(
    board: Scoreboard, model: LoadedModel, inputs: Panel, truth: Panel, period: Period, budget: timedelta, clock: Clock
) -> str:
    """Score a statistical model fitted anew at some origins of each series; return how many it was, cut off or not."""
    config = model.model.config
    groups = list(origin_groups(inputs, period, config.horizon))
    share = budget / max(1, sum(len(columns) for columns, _ in groups))
    fitted = requested = 0
    name = "statistical"
    for columns, rows in groups:
        sampled = rows[np.linspace(0, len(rows) - 1, min(STATISTICAL_ORIGINS, len(rows))).round().astype(int)]
        for column in columns.tolist():
            first = int(inputs.observed_TB[:, column].argmax()) + MIN_HISTORY
            if not len(sampled[sampled >= first]):
                continue
            result = statistical(
                inputs.values_TB[:, column],
                sampled[sampled >= first].tolist(),
                horizon=config.horizon,
                seasons=config.seasons,
                quantile_levels=config.quantile_levels,
                budget=share,
                clock=clock,
            )
            fitted, requested, name = fitted + len(result.origins), requested + result.num_requested, result.model
            targets_OH = result.origins[:, None] + np.arange(1, config.horizon + 1)
            against = reference(truth, column, period, season_of(config))
            board.add(result.model, truth.values_TB[targets_OH, column], result.quantiles, against)
    cut = "" if fitted == requested else f", cut off by its budget of {budget.total_seconds():.0f} s"
    return f"{name} was refitted at {fitted} of {requested} sampled origins{cut}; the others were scored at every origin."
