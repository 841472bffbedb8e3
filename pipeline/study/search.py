"""One search for good settings: Optuna proposes, a training answers, and everything is on disk when it has.

Called by `pipeline.study.tune` (one search) and `pipeline.study.depth` (one for each cell). Optuna is imported in the functions.
A trial is a row of a SQLite file in the study's folder, which survives `kill -9`: `begin` tries again what was under way.
"""

import fcntl
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pipeline.errors import ModelError, StoreError, TidecastError
from pipeline.prepare.sequences import Panel
from pipeline.prepare.splits import Split
from pipeline.settings import Settings, TrainSettings
from pipeline.study.knobs import Knob, Value, with_knobs
from pipeline.train.fit import Progress, fit, forecaster_config

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

BUSY_TIMEOUT_S = 60  # two workers write at once; Optuna would give up after five seconds
# Faults of one trial: it diverges, it is too large, its settings are refused. Too little data is a fault of all of them.
TRIAL_FAULTS = (ModelError, RuntimeError, MemoryError, ValueError)

State = Literal["complete", "pruned", "fail"]
STATES: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "fail"}


@dataclass(frozen=True, kw_only=True)
class Search:
    """What all trials of one search share; sent to the worker processes.

    Attributes:
        folder: of the study.
        name: of the search.
        panel, split: what is trained and validated on; nothing after `split.validation_end` is read.
        settings: of every training, but for the knobs.
        knobs: what is searched.
        spread_trials: trials before the sampler learns from the others, and before any is pruned.
        warm_up_epochs: that no trial is pruned in: deep stacks start slowly.
    """

    folder: Path
    name: str
    panel: Panel
    split: Split
    settings: TrainSettings
    knobs: tuple[Knob, ...]
    spread_trials: int
    warm_up_epochs: int


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial that has ended.

    Attributes:
        number: in its search, from 0.
        state: complete, pruned, or fail, with the `error` that ended it.
        knobs: what it was trained with.
        validation: the best validation loss it reached; NaN where it has none.
        curves: a row for each epoch.
        started, ended: instants.
    """

    number: int
    state: State
    knobs: dict[str, Value]
    validation: float
    curves: tuple[dict[str, float], ...]
    started: datetime
    ended: datetime
    error: str | None


def study_folder(settings: Settings, name: str) -> Path:
    """Return the folder that keeps a study of this name."""
    return settings.state_dir / "studies" / name


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a study's folder; the lock ends with the process, however that ends.

    Raises:
        StoreError: where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"A study requires its folder for itself; got {folder}, which another process works in. Wait for it, or stop it."
            ) from error
        yield


def begin(search: Search, points: Sequence[Mapping[str, Value]]) -> None:
    """Create a search with the first points to try, or go on with it: what was under way when it was killed is tried again.

    Args:
        search: to create.
        points: knobs of the first trials; tried in order, once, when the search is new.
    """
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _storage(search.folder, check_version=True) as storage:
        known = search.name in optuna.get_all_study_names(storage)
        study = optuna.create_study(storage=storage, study_name=search.name, load_if_exists=True)
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.enqueue_trial({**trial.system_attrs.get("fixed_params", {}), **trial.params})
            study.tell(trial.number, state=TrialState.FAIL)
        for point in () if known else points:
            study.enqueue_trial(dict(point))


def add_points(search: Search, points: Sequence[Mapping[str, Value]]) -> None:
    """Queue further points, those that the search does not hold yet."""
    with _opened(search) as study:
        for point in points:
            study.enqueue_trial(dict(point), skip_if_exists=True)


def run_trial(search: Search) -> int:
    """Run one further trial and return its number; a fault of its own is noted, and does not end the search.

    Raises:
        DataError: when there is too little history for any trial.
    """
    import optuna
    from optuna.trial import TrialState

    with _opened(search) as study:
        trial, values = _ask(search, study)
        curves: list[dict[str, float]] = []

        def report(epoch: int, max_epochs: int, train_loss: float, validation_loss: float) -> None:  # noqa: ARG001 (a Progress)
            curves.append({"epoch": epoch, "train/pinball": train_loss, "validation/pinball": validation_loss})
            trial.report(validation_loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            curves = _fit(search, values, report)
        except optuna.TrialPruned:
            value, state = None, TrialState.PRUNED
        except TRIAL_FAULTS as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            value, state = None, TrialState.FAIL
        else:
            value, state = best_validation(curves), TrialState.COMPLETE
        trial.set_user_attr("curves", curves)
        study.tell(trial, value, state)
        return trial.number


def run_trial_of(searches: Sequence[Search], index: int) -> int:
    """Run one further trial of one of the searches, and return which: the job of a worker process."""
    run_trial(searches[index])
    return index


def records(search: Search) -> list[TrialRecord]:
    """Return the trials that have ended, by number; one that was killed has not, and counts for nothing."""
    from optuna.trial import TrialState

    with _opened(search) as study:
        ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [_record(trial) for trial in ended if trial.state != TrialState.FAIL or "error" in trial.user_attrs]


def best_record(search: Search, found: Sequence[TrialRecord]) -> TrialRecord:
    """Return the complete trial with the lowest validation loss.

    Raises:
        TidecastError: where no trial was completed.
    """
    complete = [record for record in found if record.state == "complete"]
    if not complete:
        said = next((record.error for record in found if record.error is not None), "none was run")
        raise TidecastError(f"The search {search.name} requires a trial that completes; got {len(found)}, none of which did ({said}).")
    return min(complete, key=lambda record: record.validation)


def best_validation(curves: Sequence[Mapping[str, float]]) -> float:
    """Return the lowest validation loss of a training; NaN where no epoch has a finite one."""
    return min((row["validation/pinball"] for row in curves if math.isfinite(row["validation/pinball"])), default=math.nan)


def _ask(search: Search, study: "Study") -> "tuple[Trial, dict[str, Value]]":
    """Let one worker at a time take a queued point or draw one: on SQLite, two would take the same."""
    with (search.folder / "ask.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        trial = study.ask()
        values = {knob.name: knob.suggest(trial) for knob in search.knobs}
        trial.set_user_attr("knobs", values)
    return trial, values


def _fit(search: Search, values: Mapping[str, Value], report: Progress) -> list[dict[str, float]]:
    settings, panel = with_knobs(search.settings, values), search.panel
    return list(fit(panel, search.split, forecaster_config(settings, panel.interval, panel.covariates), settings, report).curves)


def _record(trial: "FrozenTrial") -> TrialRecord:
    started, ended = cast("datetime", trial.datetime_start), cast("datetime", trial.datetime_complete)  # of a trial that has ended
    curves = tuple(trial.user_attrs.get("curves", ()))
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state.name],
        knobs=trial.user_attrs["knobs"],
        validation=best_validation(curves),
        curves=curves,
        started=started.astimezone(UTC),  # Optuna keeps the machine's local time
        ended=ended.astimezone(UTC),
        error=trial.user_attrs.get("error"),
    )


@contextmanager
def _opened(search: Search) -> "Iterator[Study]":
    """Open a search with the sampler and the pruner that are the same for all; the seed differs from trial to trial."""
    import optuna

    with _storage(search.folder, check_version=False) as storage:
        study = optuna.load_study(study_name=search.name, storage=storage)
        seed = search.settings.seed + len(study.get_trials(deepcopy=False))  # one seed alone would draw the same again after a restart
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=search.spread_trials, seed=seed)
        study.pruner = optuna.pruners.MedianPruner(search.spread_trials, search.warm_up_epochs)
        yield study


@contextmanager
def _storage(folder: Path, *, check_version: bool) -> "Iterator[RDBStorage]":
    """Open the study's database, and close it: an idle connection of SQLite would outlive its worker's turn.

    Args:
        folder: of the study.
        check_version: whether to ask if this Optuna can read it: a tenth of a second, where a study opens it hundreds of times.
    """
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    database = folder / "optuna.db"
    options = {"creator": lambda: sqlite3.connect(database, timeout=BUSY_TIMEOUT_S), "poolclass": NullPool}
    try:
        # The path is not in the URL, where a space or a percent sign would need escapes.
        storage = RDBStorage("sqlite://", engine_kwargs=options, skip_compatibility_check=not check_version)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
        said = str(error.__cause__ or error).split("\n")[0]
        raise StoreError(
            f"A study requires a working database; got {said!r} from {database}. Check the disk, or move the folder away to begin anew."
        ) from error
