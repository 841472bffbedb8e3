"""Good settings for a lake's series, found on training and validation data alone: `tidecast tune` below the command line.

Called by `flows.tune`. The first trial is the settings as they are, so that the best is never worse on the validation period.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pipeline.clock import Clock
from pipeline.prepare.splits import check_borders
from pipeline.settings import Settings
from pipeline.study.inputs import Step, StudyInputs
from pipeline.study.knobs import Choice, Knob, Range, Value, spread, to_toml, value_of, with_knobs
from pipeline.study.search import Search, TrialRecord, begin, best_record, records, run_trial_of, sole_user, study_folder
from pipeline.study.workers import run_jobs
from pipeline.tracking.nested import Child, log_child, logged_children, study_run
from pipeline.tracking.run import Run

KNOBS: tuple[Knob, ...] = (
    Range("learning_rate", 2e-4, 2e-2, log=True),
    Range("weight_decay", 1e-5, 1e-1, log=True),
    Range("batch_size", 8, 64, log=True, whole=True),
    Range("network.dropout", 0.0, 0.6),
    Range("network.hidden_size", 16, 128, log=True, whole=True),
    Range("network.num_layers", 1, 4, whole=True),
    Choice("network.wiring", ("residual", "plain")),
)
SPREAD_TRIALS = 8  # before the sampler learns: about one for each knob
WARM_UP_EPOCHS = 5  # that no trial is pruned in: the highway is there from the start, and so early a loss says little of the stack


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """What a search is asked to do.

    Attributes:
        series: glob patterns; None for every series.
        train_end, validation_end: borders; None: by the settings' fractions.
        trials: how many in all, those of an earlier command included.
        minutes: no trial begins after that long; None for no limit.
        workers: processes that train side by side.
    """

    series: tuple[str, ...] | None = None
    train_end: datetime | None = None
    validation_end: datetime | None = None
    trials: int = 20
    minutes: float | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse borders that are naive or not in order.

        Raises:
            SettingsError: for a naive one.
            DataError: when they are not in order.
        """
        check_borders("A search", self.train_end, self.validation_end)


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """What a search found.

    Attributes:
        study: its name; the same command goes on with it.
        run_id: of its MLflow run.
        trials, pruned, failed: how many there have been, those of earlier commands included.
        best_trial: number of the best.
        validation: its loss, the mean pinball loss in normalised units over the validation period.
        validation_before: that of the settings as they are; None where that trial failed.
        best: its knobs, by dotted name below `train`.
        toml: lines of `tidecast.toml` that set them.
        train_end, validation_end: borders of the periods that were looked at.
    """

    study: str
    run_id: str
    trials: int
    pruned: int
    failed: int
    best_trial: int
    validation: float
    validation_before: float | None
    best: dict[str, Value]
    toml: str
    train_end: datetime
    validation_end: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()}

    def to_markdown(self) -> str:
        """Return a summary for people."""
        before = "failed" if self.validation_before is None else f"{self.validation_before:.4f}"
        return (
            f"Study {self.study}: {self.trials} trials, {self.pruned} of them pruned and {self.failed} failed. "
            f"Best: trial {self.best_trial}, validation loss **{self.validation:.4f}** (the settings as they are: {before}). "
            f"Looked at up to {self.validation_end:%Y-%m-%d %H:%M} UTC, and at nothing after.\n\n```toml\n{self.toml}\n```\n"
        )

    def tuned(self, settings: Settings) -> Settings:
        """Return the settings with the best knobs."""
        return settings.model_copy(update={"train": with_knobs(settings.train, self.best)})


def tune(settings: Settings, request: TuneRequest, clock: Clock, step: Step | None = None) -> TuneReport:
    """Search for settings, or go on with the search that an earlier command began.

    Args:
        settings: those to better; `train.max_seconds` and `train.max_epochs` bound every trial.
        request: series, borders and budget.
        clock: for the limit and the instants of runs.
        step: told of every trial.

    Raises:
        DataError: when no series matches or there is too little history.
        StoreError: when lake, study or tracking store cannot be read or written, or another process works on this study.
        TidecastError: when no trial completes.
    """
    started = clock.now()
    inputs = StudyInputs.load(settings, request.series, request.train_end, request.validation_end)
    name = inputs.name("tune", train=settings.train.model_dump(mode="json"))
    search = _search(settings, name, inputs)
    with sole_user(search.folder):
        begin(search, [_as_they_are(search), *spread(search.knobs, search.spread_trials - 1)])
        with study_run(settings, name, clock, input_versions=inputs.versions, role="tune") as run:
            deadline = None if request.minutes is None else started + timedelta(minutes=request.minutes)
            _run_trials(search, run, request, clock, deadline, step)
            found = records(search)
            report = _report(search, run, found)
            run.set_tags({f"best.{knob}": str(value) for knob, value in report.best.items()})  # more trials may change them; params stay
            run.log_metrics({"validation/best": report.validation})
            run.log_text(report.toml, "best.toml")
            run.log_summary(report.to_markdown())
    return report


def log_trials(run: Run, search: Search, logged: set[str], label: str = "trial") -> None:
    """Write the ended trials of a search that MLflow does not hold yet, each as a run below the study's, and note them as logged."""
    for record in records(search):
        name = f"{label} {record.number}"
        if name in logged:
            continue
        child = Child(
            name=name,
            state=record.state,
            params=record.knobs,
            curves=record.curves,
            metrics={"validation/best": record.validation},
            started=record.started,
            ended=record.ended,
            error=record.error,
        )
        log_child(run, child)
        logged.add(name)


def _search(settings: Settings, name: str, inputs: StudyInputs) -> Search:
    return Search(
        folder=study_folder(settings, name),
        name=name,
        panel=inputs.panel,
        split=inputs.split,
        settings=settings.train,
        knobs=tuple(knob.including(value_of(settings.train, knob.name)) for knob in KNOBS),
        spread_trials=SPREAD_TRIALS,
        warm_up_epochs=WARM_UP_EPOCHS,
    )


def _as_they_are(search: Search) -> dict[str, Value]:
    """Return the knobs of the settings as they are."""
    return {knob.name: knob.rounded(value_of(search.settings, knob.name)) for knob in search.knobs}


def _run_trials(search: Search, run: Run, request: TuneRequest, clock: Clock, deadline: datetime | None, step: Step | None) -> None:
    """Run trials until there are enough or the time is up."""
    done, logged = len(records(search)), logged_children(run)
    log_trials(run, search, logged)  # those that a killed command left

    def jobs() -> Iterator[int]:
        for _ in range(request.trials - done):
            if deadline is not None and clock.now() >= deadline:
                return
            yield 0

    for _ in run_jobs(partial(run_trial_of, (search,)), jobs(), request.workers):
        done += 1
        log_trials(run, search, logged)
        if step is not None:
            step(done, request.trials, search.name)


def _report(search: Search, run: Run, found: list[TrialRecord]) -> TuneReport:
    best, as_they_are = best_record(search, found), _as_they_are(search)
    return TuneReport(
        study=search.name,
        run_id=run.run_id,
        trials=len(found),
        pruned=sum(record.state == "pruned" for record in found),
        failed=sum(record.state == "fail" for record in found),
        best_trial=best.number,
        validation=best.validation,
        validation_before=next((r.validation for r in found if r.knobs == as_they_are and r.state == "complete"), None),
        best=best.knobs,
        toml=to_toml(best.knobs),
        train_end=search.split.train_end,
        validation_end=search.split.validation_end,
    )
