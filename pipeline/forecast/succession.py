"""A new champion: its states are rebuilt in a process of their own while the old one serves, and it takes over between two ticks.

Called by `pipeline.forecast.follower`. The rebuilt state waits in a file of its own: the catalog points to it only once the model
serves. A follower that dies before that continues with the old model (`pipeline.store.handovers`) and begins the rebuild again.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import ModelError, StoreError, TidecastError
from pipeline.forecast.leadership import Leadership
from pipeline.forecast.rolling import RollingForecasts
from pipeline.forecast.state import StreamState
from pipeline.settings import Settings
from pipeline.store.snapshot_pointers import SnapshotPointers
from pipeline.tracking.mlflow_store import local_database
from pipeline.tracking.registry import champion_version, load_version
from pipeline.tracking.saved_model import LoadedModel

logger = logging.getLogger(__name__)

NICENESS = 10  # the old model's ticks come first
TRY_AGAIN = timedelta(minutes=1)  # a champion that could not be loaded, or whose rebuild died
ASK_AGAIN = timedelta(seconds=5)  # who the champion is, of a registry that is no local file


class ChampionWatch:
    """Asks the registry for the champion only when it may have changed."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._version: str | None = None
        self._seen: object = None

    def version(self) -> str | None:
        """Return the champion's version; None where there is none; the last known one where the registry cannot be read."""
        sign = self._sign()
        if sign != self._seen:
            self._seen = sign
            try:
                self._version = champion_version(self._settings)
            except StoreError as error:  # a registry that is down must not stop the forecasts
                logger.warning("the champion stays as it was: %s", error)
                self._seen = None
        return self._version

    def _sign(self) -> object:
        """Return a value that differs after every write to the registry: for a local file its time of change, else the time itself."""
        database = local_database(self._settings)
        if database is None:
            return self._clock.elapsed() // ASK_AGAIN
        files = (database, database.with_name(f"{database.name}-wal"))
        return tuple(_last_written(file) for file in files)


def _last_written(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:  # SQLite takes its write-ahead log away whenever the last connection closes
        return None
    return found.st_mtime_ns, found.st_size


class Succession:
    """The rebuild of one new champion at a time."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._version: str | None = None
        self._model: LoadedModel | None = None
        self._process: SpawnProcess | None = None
        self._failed_at: timedelta | None = None
        self._told_of: str | None = None

    def prepare(self, version: str) -> None:
        """Begin, or go on with, the rebuild of a version; a failure is logged once, and the rebuild tried again every `TRY_AGAIN`."""
        if version != self._version:
            self.stop()
            self._version = version
        if self._process is not None and self._process.exitcode not in (None, 0):
            self._fail(f"its rebuild ended with exit code {self._process.exitcode}")
        is_waiting = self._failed_at is not None and self._clock.elapsed() < self._failed_at + TRY_AGAIN
        if self._process is None and not is_waiting:
            self._begin(version)

    def _begin(self, version: str) -> None:
        try:
            self._model = load_version(self._settings, version)  # by us, as it is to serve here: its files may be gone
        except (ModelError, StoreError) as error:
            self._fail(str(error))
            return
        logger.info("rebuilding every state for version=%s", version)
        arguments = (self._settings.model_dump(mode="json"), version, str(self._place))
        self._process = get_context("spawn").Process(target=rebuild, args=arguments, daemon=True)
        with _interrupts_blocked():
            self._process.start()

    def _fail(self, why: str) -> None:
        """Leave it for now."""
        if self._told_of != self._version:
            self._told_of = self._version
            logger.warning("version=%s is the champion and cannot serve yet; the one before goes on: %s", self._version, why)
        self._process, self._failed_at = None, self._clock.elapsed()

    def wait(self, timeout_s: float) -> None:
        """Wait until the rebuild has ended, well or not."""
        if self._process is not None:
            self._process.join(timeout_s)

    def is_ready(self, version: str) -> bool:
        """Return whether the states of a version are rebuilt."""
        return self._version == version and self._process is not None and self._process.exitcode == 0

    def successor(self, leadership: Leadership | None) -> RollingForecasts | None:
        """Return the prepared model with its rebuilt states; None where there is none, or the file holds something else."""
        if self._model is None:
            return None
        try:
            state = StreamState.resume(self._place)
        except StoreError as error:
            self._fail(str(error))
            return None
        if state.model_version != self._model.identity:
            self._fail(f"its rebuilt state is of model {state.model_version}")
            return None
        return RollingForecasts(self._settings, self._model, state, leadership)

    def stop(self) -> None:
        """End a rebuild that runs, and delete its files."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join()
        try:
            for file in self._place.parent.glob(f"{self._place.stem}.*"):  # a half-written one too
                file.unlink(missing_ok=True)
        except OSError as error:  # the next rebuild overwrites it
            logger.warning("rebuilt state not deleted: %s", error)
        self._process, self._version, self._model, self._failed_at = None, None, None, None

    @property
    def _place(self) -> Path:
        return SnapshotPointers(self._settings.state_dir).folder / "rebuilt.safetensors"


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C, which a terminal sends to both, from a process that is started in the block, from its first instruction on.

    The mask is inherited. What arrives here meanwhile arrives after the block.
    """
    resource_tracker.ensure_running()  # starting it later, with the process, would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """End this process when its parent has ended, even by `kill -9`; else it would write beside the next follower's rebuild."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def rebuild(settings: dict[str, object], version: str, place: str) -> None:
    """Read the whole history of every series with a version of the model, forecast nothing, and write the state; runs in its own process.

    Args:
        settings: dumped.
        version: in the registry.
        place: the file to write.
    """
    import torch

    from pipeline.clock import SystemClock

    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    os.nice(NICENESS)
    torch.set_num_threads(1)
    known = Settings(**settings)  # type: ignore[arg-type]
    try:
        rolling = RollingForecasts.open(known, load_version(known, version))
        rolling.advance(SystemClock(), origins=0, issued={})
        rolling.state.snapshot(Path(place))
    except TidecastError as error:
        sys.exit(str(error))  # one sentence, which the follower need not repeat
