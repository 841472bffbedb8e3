"""What the command line writes: results on stdout (with `--json` exactly one document), everything else on stderr.

Called by the verbs in `flows.cli_*` and by `flows.cli.main`.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipeline.query.printable import printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def jsonable(value: object) -> Json:
    """Turn a report into what `json` can write.

    Instants become ISO 8601, durations seconds, paths strings; numbers that JSON does not have (NaN, infinities) become null.

    >>> jsonable({"took": timedelta(minutes=1), "mase": float("nan"), "levels": (0.1, 0.9)})
    {'took': 60.0, 'mase': None, 'levels': [0.1, 0.9]}
    """
    if isinstance(value, Mapping):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else _word(value)


def _word(value: object) -> float | str:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, date) else str(value)  # a datetime is a date


def write_json(document: object) -> None:
    """Write one JSON document and a line end to stdout, at once: `ui` and `serve` go on after it."""
    sys.stdout.write(_shown(json.dumps(jsonable(document), indent=2, allow_nan=False, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def _shown(document: str) -> str:
    """Escape in a JSON text what a terminal might obey and `json` leaves as it is: the second set of controls, marks that turn text."""
    if document.replace("\n", "").isprintable():
        return document
    return "".join(letter if letter == "\n" or letter.isprintable() else json.dumps(letter)[1:-1] for letter in document)


def stderr() -> "Console":
    """Return a console on stderr, as it is now (a test may have replaced the stream)."""
    from rich.console import Console

    return Console(stderr=True)


def stdout() -> "Console":
    """Return a console on stdout that does not cut columns where nobody looks: 160 characters wide unless a terminal says otherwise."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def note(sentence: str) -> None:
    """Write a remark for a person to stderr."""
    from rich.text import Text

    stderr().print(Text(printable_lines(sentence), style="dim"), soft_wrap=True)


def log_to_stderr() -> None:
    """Write what our modules log, from facts to faults, to stderr: for the verbs that run as a service."""
    import logging

    class Printable(logging.Formatter):
        """Keeps what devices call themselves from being obeyed, and from making lines of its own."""

        def formatMessage(self, record: logging.LogRecord) -> str:
            return printable(super().formatMessage(record))

        def formatException(self, ei: Any) -> str:  # noqa: ANN401 (as logging declares it)
            return printable_lines(super().formatException(ei))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("pipeline").setLevel(logging.INFO)


def show_counts(counts: Mapping[str, int]) -> None:
    """Write what was counted on one line of stdout, each number behind its name."""
    stdout().print("  ".join(f"{name} [bold]{count:,}[/bold]" for name, count in counts.items()), highlight=False)


def show_markdown(text: str) -> None:
    """Draw a report on stdout."""
    from rich.markdown import Markdown

    stdout().print(Markdown(text))


def fail(sentence: str) -> None:
    """Write an error to stderr: one line, red on a terminal."""
    from rich.text import Text

    stderr().print(Text(printable_lines(sentence), style="red"), soft_wrap=True)


def table(rows: Sequence[Mapping[str, object]], *, title: str | None = None) -> "RenderableType":
    """Lay rows out as a table; columns are those of the first row, numbers are set to the right; only a terminal gets a frame."""
    from rich.box import HEAVY_HEAD
    from rich.table import Table

    lines = HEAVY_HEAD if sys.stdout.isatty() else None
    drawn = Table(title=title, title_justify="left", header_style="bold", box=lines, pad_edge=lines is not None)
    for name, value in (rows[0] if rows else {}).items():
        drawn.add_column(name, justify="right" if isinstance(value, int | float) else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell(value) for value in row.values()))
    return drawn


def cell(value: object) -> str:
    """Write one value for a table.

    >>> [cell(value) for value in (None, 0.123456, 19495, 12345.678, "mean")]
    ['–', '0.1235', '19,495', '12,346', 'mean']
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else printable(str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _progress(*columns: "ProgressColumn") -> "Progress":
    """Return a display on stderr that is gone when its block ends; on no terminal it shows nothing."""
    from rich.progress import Progress

    console = stderr()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Show on a terminal's stderr that work goes on, with the time it has taken; elsewhere show nothing."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    with _progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
        progress.add_task(doing, total=None)
        yield


EpochListener = Callable[[int, int, float, float], None]
_epoch_listener: ContextVar[EpochListener | None] = ContextVar("epoch_listener", default=None)


def report_epoch(epoch: int, max_epochs: int, train_loss: float, validation_loss: float) -> None:
    """Tell whoever watches that a training epoch has ended.

    A context variable carries the watcher past Prefect, whose flows take only what can be stored as JSON.
    """
    listener = _epoch_listener.get()
    if listener is not None:
        listener(epoch, max_epochs, train_loss, validation_loss)


@contextmanager
def watch_training(max_seconds: float) -> Iterator[None]:
    """Show on a terminal's stderr how training goes: the time used of `max_seconds`, the epoch and the losses."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    with _progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("preparing to train", total=max_seconds)

        def show(epoch: int, max_epochs: int, train_loss: float, validation_loss: float) -> None:
            losses = f"epoch {epoch} of at most {max_epochs} · loss {train_loss:.4f} · validation {validation_loss:.4f}"
            progress.update(bar, description=losses, completed=progress.tasks[0].elapsed or 0.0)

        token = _epoch_listener.set(show)
        try:
            yield
        finally:
            _epoch_listener.reset(token)


StepListener = Callable[[int, int, str], None]
_step_listener: ContextVar[StepListener | None] = ContextVar("step_listener", default=None)


def report_step(done: int, total: int, what: str) -> None:
    """Tell whoever watches that one of many trainings has ended; as for `report_epoch`, past Prefect."""
    listener = _step_listener.get()
    if listener is not None:
        listener(done, total, what)


@contextmanager
def watch_steps(first: str) -> Iterator[None]:
    """Show on a terminal's stderr how many of many trainings have ended; until the first has, what is done before it."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    with _progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task(first, total=None)
        token = _step_listener.set(lambda done, total, what: progress.update(bar, description=what, completed=done, total=total))
        try:
            yield
        finally:
            _step_listener.reset(token)


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a download on a terminal's stderr.

    Yields:
        What to call with the bytes so far and the bytes in all.
    """
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    with _progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
