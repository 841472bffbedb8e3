"""The picture of a look at some series, for a terminal of any size: a chart each, or a line each where more are asked for than fit.

Called by the verb `watch`, which hands it to rich's `Live`; what it draws depends on the look, the instant and the size alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from pipeline.query.exports import short_number
from pipeline.query.printable import printable
from pipeline.query.terminal_chart import MIN_WIDTH, draw_chart, draw_spark
from pipeline.query.watch import Fan, Look, SeriesView

AROUND_A_PLOT = 6  # lines: the name above, two of the time axis, two of words, and an empty one
FEWEST_ROWS, MOST_ROWS = 4, 12  # lines of a plot
AROUND_THE_TABLE = 2  # lines: its header and the foot of the screen
NARROWEST_NAME = 12
ASCII = str.maketrans({"·": "-", "…": "~", "−": "-", "–": "-", "°": " "})
SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}


@dataclass(frozen=True)
class Screen:
    """One frame.

    Attributes:
        look: what to draw.
        now: the present, for ages.
        problem: a sentence to show at the foot: why the look is not a new one.
        height: lines there are; None for those of the terminal.
    """

    look: Look
    now: datetime
    problem: str | None = None
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw for the size and the character set that the console has at this moment."""
        height = self.height or options.height or options.size.height
        for line in self.lines(options.max_width, height, unicode=not options.ascii_only):
            line.no_wrap, line.overflow = True, "ignore" if options.ascii_only else "ellipsis"
            yield line

    def lines(self, width: int, height: int, *, unicode: bool = True) -> list[Text]:
        """Return the lines of the frame; none is longer than `width`."""
        views, rows = self.look.views, plot_rows(self.look.num_series, height)
        if rows is not None and width >= MIN_WIDTH:
            lines = [line for view in views for line in _panel(view, self, width, rows, unicode)]
        else:
            lines = _table(views[: max(1, height - AROUND_THE_TABLE)], self.now, width, unicode)
        lines = [*lines, self._foot(len(views))]
        return [_within(line, width, unicode) for line in lines]

    def _foot(self, num_shown: int) -> Text:
        if self.problem is not None:
            return Text(printable(self.problem), "red")
        left_out = self.look.num_series - num_shown
        return Text(f"{self.now:%Y-%m-%d %H:%M:%S} UTC" + (f" · {left_out:,} more series than fit" if left_out else ""), "dim")


def capacity(height: int) -> int:
    """Return how many series a screen of so many lines can show at most."""
    return max(1, height - AROUND_THE_TABLE)


def plot_rows(num_series: int, height: int) -> int | None:
    """Return how many lines each plot gets; None where the charts of all series do not fit."""
    rows = (height - 1) // max(1, num_series) - AROUND_A_PLOT
    return None if rows < FEWEST_ROWS else min(rows, MOST_ROWS)


def _panel(view: SeriesView, screen: Screen, width: int, rows: int, unicode: bool) -> list[Text]:
    """Return the chart of a series with its words."""
    ticks = view.history.drop_nulls("value")
    value = " ".join(part for part in (_newest(view), printable(view.unit or "")) if part)
    label = "" if ticks.is_empty() else f" at {_stamp(ticks['ts'][-1], screen.now)}"  # the reading may be newer than any tick
    age = Text(f"{label}  ", "dim").append(_age(view, screen.now), f"not dim {_age_style(view, screen.now)}")
    room = max(1, width - len(value) - len(age) - 1)
    name = Text(printable(view.series_id), "bold")
    name.truncate(room, overflow="ellipsis", pad=True)
    return [
        name.append(" ").append(value, "bold cyan").append_text(age),
        *draw_chart(view, width, rows, unicode=unicode),
        _forecast_line(view.fan, screen.now),
        _score_line(view, screen.look.scored_until, screen.now),
        Text(""),
    ]


def _forecast_line(fan: Fan | None, now: datetime) -> Text:
    line = Text("forecast  ", "dim")
    if fan is None:
        return line.append("none yet", "not dim")
    line.append(f"from {_stamp(fan.origin, now)} · ", "not dim").append(fan.status, f"not dim {_status_style(fan.status)}")
    line.append(f" · model {fan.model_version} · made {age_of(now - fan.created_at)} ago", "not dim")
    return line.append(" · over", "not dim red") if _is_over(fan, now) else line


def _score_line(view: SeriesView, until: datetime | None, now: datetime) -> Text:
    """Say how good the last day's forecasts were; where scoring has stopped, of which day."""
    day = view.day
    if day is None or until is None:
        return Text("last day  ", "dim").append("no forecast has come true in it", "not dim")
    is_recent = view.sample_interval is not None and now - until <= 3 * view.sample_interval
    line = Text("last day  ", "dim") if is_recent else Text(f"day to {_stamp(until, now)}  ", "yellow")
    parts = [f"MAE {_number(day.mae)}", f"bias {_signed(day.bias)}", f"80 % interval held {_percent(day.coverage)} of {day.scored:,}"]
    parts += [f"{day.num_models} models"] if day.num_models > 1 else []
    return line.append(" · ".join(parts), "not dim")


def _table(views: tuple[SeriesView, ...], now: datetime, width: int, unicode: bool) -> list[Text]:
    """Return a header and a line for each series, with as many columns as have room."""
    columns = {"newest": 9, "age": 8, "recent": 12, "next": 9, "status": 11, "MAE": 8, "80 %": 6}
    wanted = max(NARROWEST_NAME, min(width * 2 // 5, max(len(view.series_id) for view in views)))
    for name in ("next", "MAE", "recent", "status", "80 %", "age"):  # the first to go comes first
        if width - sum(columns.values()) >= wanted:
            break
        del columns[name]
    room = max(1, width - sum(columns.values()))

    def line(name: str, cells: dict[str, Text]) -> Text:
        begin = Text(printable(name))
        begin.truncate(room, overflow="ellipsis", pad=True)
        for column, cell_width in columns.items():
            cell = cells[column]
            cell.truncate(cell_width - 1, overflow="ellipsis")
            begin.append(" " * (cell_width - cell.cell_len)).append_text(cell)
        return begin

    header = line("series", {column: Text(column) for column in columns})
    header.stylize("bold")
    return [header, *(line(view.series_id, _cells(view, now, columns.get("recent", 1), unicode)) for view in views)]


def _cells(view: SeriesView, now: datetime, spark_width: int, unicode: bool) -> dict[str, Text]:
    fan, day = view.fan, view.day
    return {
        "newest": Text(_newest(view) or "–", "bold cyan"),
        "age": Text(_short_age(view, now), _age_style(view, now)),
        "recent": Text(draw_spark(view, max(1, spark_width - 1), unicode=unicode), "cyan"),
        "next": Text("–" if fan is None else _number(next(_upcoming(fan, now), None)), "yellow"),
        "status": Text("–") if fan is None else Text("over", "red") if _is_over(fan, now) else Text(fan.status, _status_style(fan.status)),
        "MAE": Text("–" if day is None else _number(day.mae)),
        "80 %": Text("–" if day is None else _percent(day.coverage)),
    }


def _upcoming(fan: Fan, now: datetime) -> Iterator[float]:
    """Yield the medians of the steps that are still to come."""
    return (median for ts, median in fan.steps.select("ts", "median").iter_rows() if ts > now and median is not None)


def _is_over(fan: Fan, now: datetime) -> bool:
    """Return whether the last step of a forecast is past."""
    return not fan.steps.filter(pl.col("ts") >= now).height


def _newest(view: SeriesView) -> str | None:
    observed = view.history["value"].drop_nulls()
    return None if observed.is_empty() else short_number(observed[-1])


def _age(view: SeriesView, now: datetime) -> str:
    """Say how long ago the newest reading was measured, by its own stamp; a device's clock may be ahead of ours."""
    if view.last_reading is None:
        return "no reading"
    age = now - view.last_reading
    return f"reading {age_of(age)} ago" if age >= timedelta(0) else f"reading {age_of(-age)} ahead"


def _short_age(view: SeriesView, now: datetime) -> str:
    if view.last_reading is None:
        return "–"
    age = now - view.last_reading
    return age_of(age) if age >= timedelta(0) else f"−{age_of(-age)}"


def age_of(age: timedelta) -> str:
    """Write a duration in its largest unit, two digits of it.

    >>> [age_of(timedelta(seconds=s)) for s in (0.4, 59, 150, 5400, 200_000)]
    ['0 s', '59 s', '2 min', '1.5 h', '2.3 d']
    """
    seconds = max(0.0, age.total_seconds())
    unit, size = next(((unit, size) for unit, size in SECONDS.items() if seconds >= size), ("s", 1))
    count = seconds / size
    return f"{count:.1f} {unit}" if unit in ("d", "h") and count < 10 else f"{int(count):,} {unit}"


def _age_style(view: SeriesView, now: datetime) -> str:
    """Return yellow where more than three readings are missing, red where a device's clock is ahead."""
    if view.last_reading is None or view.sample_interval is None:
        return ""
    age = now - view.last_reading
    return "red" if age < -view.sample_interval else "yellow" if age > 3 * view.sample_interval else "green"


def _status_style(status: str) -> str:
    return "green" if status == "ok" else "yellow"


def _stamp(instant: datetime, now: datetime) -> str:
    return f"{instant:%H:%M:%S}" if instant.date() == now.date() else f"{instant:%m-%d %H:%M}"


def _number(value: float | None) -> str:
    return "–" if value is None else short_number(value)


def _signed(value: float | None) -> str:
    return "–" if value is None else ("+" if value > 0 else "−" if value < 0 else "") + short_number(abs(value))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _within(line: Text, width: int, unicode: bool) -> Text:
    """Cut a line to the width, and to ASCII where there is nothing else; a sign that ASCII lacks becomes a question mark."""
    line.truncate(width, overflow="ellipsis")
    if not unicode:
        line.plain = line.plain.translate(ASCII).encode("ascii", "replace").decode()
    return line
