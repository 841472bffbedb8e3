"""The last observations of a series and its newest forecast as a chart of characters, for a terminal or a pipe.

Every character holds 2 x 4 braille dots, or, where there is no Unicode, one sign. The line of observations breaks where nothing was
observed; the median is a line, the 80 % interval a stippled band. Nothing joins the two: no value lies between the origin and step 1.
Called by `pipeline.query.terminal_screen`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise

import polars as pl
from rich.text import Text

from pipeline.query.exports import short_number
from pipeline.query.watch import SeriesView
from pipeline.schemas import EPOCH

STYLES = {"band": "magenta", "history": "cyan", "median": "bold yellow"}  # in the order of painting: what comes later covers
SIGNS = {"band": ":", "history": "*", "median": "o"}  # without Unicode
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # the bit of a braille dot by column and row
LABEL_WIDTH = 9
MIN_WIDTH = LABEL_WIDTH + 12
DAY = timedelta(days=1)

Point = tuple[float, float]  # microseconds, value


class _Canvas:
    """Dots on a grid of characters, each dot painted in one role."""

    def __init__(self, columns: int, rows: int, *, unicode: bool) -> None:
        self.columns, self.rows, self.unicode = columns, rows, unicode
        self.dots_x, self.dots_y = (2, 4) if unicode else (1, 1)
        self.width, self.height = columns * self.dots_x, rows * self.dots_y
        self.cells: dict[tuple[int, int], tuple[str, int]] = {}  # column, row -> role, bits

    def dot(self, x: int, y: int, role: str) -> None:
        """Paint one dot; a character takes the role that was painted last, and loses the stipple when a line crosses it."""
        cell = (x // self.dots_x, y // self.dots_y)
        before, bits = self.cells.get(cell, (role, 0))
        bits = 0 if before == "band" != role else bits
        self.cells[cell] = role, bits | (DOTS[x % 2][y % 4] if self.unicode else 1)

    def line(self, start: tuple[int, int], end: tuple[int, int], role: str) -> None:
        """Paint the dots between two dots, both included."""
        (x0, y0), (x1, y1) = start, end
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            self.dot(round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps), role)

    def row(self, number: int) -> Text:
        """Return one row of characters."""
        text = Text()
        cells = (self.cells.get((column, number), ("", 0)) for column in range(self.columns))
        for role, run in groupby(cells, key=lambda cell: cell[0]):
            text.append("".join(self._sign(role, bits) for _, bits in run), STYLES.get(role, ""))
        return text

    def _sign(self, role: str, bits: int) -> str:
        return " " if not bits else chr(0x2800 + bits) if self.unicode else SIGNS[role]


def draw_chart(view: SeriesView, width: int, rows: int, *, unicode: bool = True) -> list[Text]:
    """Draw a series into `rows` lines for the values and two for the time axis.

    Args:
        view: what to draw.
        width: characters of each line; at least `MIN_WIDTH`.
        rows: lines of the plot itself, at least 2.
        unicode: whether braille and box characters may be used.
    """
    history, fan = _drawable(view)
    points = [*history, *(point for steps in fan.values() for point in steps)]
    values = [value for _, value in points if value is not None]
    if not values:
        return [Text("nothing observed in this time".center(width)), *([Text("")] * (rows + 1))]
    canvas = _Canvas(width - LABEL_WIDTH - 1, rows, unicode=unicode)
    times, (low, high) = [time for time, _ in points], _range(values)
    first, last = min(times), max(*times, min(times) + 1)

    def place(point: Point) -> tuple[int, int]:
        x, y = (point[0] - first) / (last - first), (high / 2 - point[1] / 2) / (high / 2 - low / 2)  # halves: a range may overflow
        return round(x * (canvas.width - 1)), round(y * (canvas.height - 1))

    _paint_band(canvas, [place(p) for p in _known(fan["upper"])], [place(p) for p in _known(fan["lower"])])
    _paint_line(canvas, [None if value is None else place((time, value)) for time, value in history], "history")
    _paint_line(canvas, [None if value is None else place((time, value)) for time, value in fan["median"]], "median")
    origin = None if view.fan is None else _microseconds(view.fan.origin)
    marks = [time for time in (origin,) if time is not None and first < time < last]
    columns = [place((time, low))[0] // canvas.dots_x for time in marks]
    labels = _value_labels(low, high, rows)
    edge = "│" if unicode else "|"
    lines = [Text(labels.get(row, "").rjust(LABEL_WIDTH - 1) + f" {edge}").append_text(canvas.row(row)) for row in range(rows)]
    return [*lines, _axis(canvas, columns, unicode), _time_labels(canvas, first, marks, columns, last)]


def draw_spark(view: SeriesView, width: int, *, unicode: bool = True) -> str:
    """Return the last `width` observations as one line of bars; a gap is a space."""
    bars = "▁▂▃▄▅▆▇█" if unicode else "_.-~=+*#"
    values = [value for _, value in _points(view.history.tail(width), "value")]
    known = [value for value in values if value is not None]
    if not known:
        return " " * width
    low, high = _range(known)
    step = (high / 2 - low / 2) / (len(bars) - 1)
    signs = (" " if value is None else bars[round((value / 2 - low / 2) / step)] for value in values)
    return "".join(signs).rjust(width)


def _drawable(view: SeriesView) -> tuple[list[tuple[float, float | None]], dict[str, list[tuple[float, float | None]]]]:
    """Return the points of the observations, and those of each quantile unless the forecast ended before them."""
    history = _points(view.history, "value")
    steps = view.history.head(0).select("ts") if view.fan is None else view.fan.steps
    if history and view.fan is not None and _microseconds(view.fan.steps["ts"].max()) < history[0][0]:  # type: ignore[arg-type]
        steps = steps.head(0)
    names = ("lower", "median", "upper")
    return history, {name: _points(steps, name) if name in steps.columns else [] for name in names}


def _points(frame: pl.DataFrame, name: str) -> list[tuple[float, float | None]]:
    finite = pl.when(pl.col(name).is_finite()).then(pl.col(name))
    return list(frame.select(pl.col("ts").dt.epoch("us"), finite.cast(pl.Float64)).iter_rows())


def _known(points: Sequence[tuple[float, float | None]]) -> list[Point]:
    return [(time, value) for time, value in points if value is not None]


def _microseconds(instant: datetime) -> float:
    return instant.timestamp() * 1e6


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - max(1.0, abs(low)) / 2, high + max(1.0, abs(high)) / 2)


def _paint_line(canvas: _Canvas, places: Sequence[tuple[int, int] | None], role: str) -> None:
    """Join neighbours; a gap breaks the line, and a value between two gaps is a dot."""
    for here in places:
        if here is not None:
            canvas.dot(*here, role)
    for here, after in pairwise(places):
        if here is not None and after is not None:
            canvas.line(here, after, role)


def _paint_band(canvas: _Canvas, upper: Sequence[tuple[int, int]], lower: Sequence[tuple[int, int]]) -> None:
    """Stipple between two lines: the dots of every second row and column, and both edges."""
    tops, bottoms = _heights(upper), _heights(lower)
    for x in tops.keys() & bottoms.keys():
        if x % canvas.dots_x == 0:
            inside = range(tops[x], bottoms[x] + 1)
            for y in {tops[x], bottoms[x], *(y for y in inside if y % max(1, canvas.dots_y // 2) == 0)}:
                canvas.dot(x, y, "band")


def _heights(places: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Return the height of a line at each dot column that it crosses."""
    heights = dict(places)
    for (x0, y0), (x1, y1) in pairwise(places):
        heights |= {x: round(y0 + (y1 - y0) * (x - x0) / (x1 - x0)) for x in range(x0 + 1, x1)}
    return heights


def _value_labels(low: float, high: float, rows: int) -> dict[int, str]:
    """Return the labels of the first, the last and, where there is room, the middle row."""
    labels = {0: high, rows - 1: low}
    if rows % 2 and rows > 4:
        labels[rows // 2] = low / 2 + high / 2
    written = {row: short_number(value) for row, value in labels.items()}
    if len(set(written.values())) < len(labels):  # values that differ after the fourth digit
        written = {row: f"{value:.7g}" for row, value in labels.items()}
    return {row: text[: LABEL_WIDTH - 1] for row, text in written.items()}


def _axis(canvas: _Canvas, columns: Sequence[int], unicode: bool) -> Text:
    rule, mark, corner = ("─", "┴", "└") if unicode else ("-", "+", "+")
    return Text(" " * LABEL_WIDTH + corner + "".join(mark if column in columns else rule for column in range(canvas.columns)))


def _time_labels(canvas: _Canvas, first: float, marks: Sequence[float], columns: Sequence[int], last: float) -> Text:
    """Return the line below the axis: the last instant, the origin below its mark or left of it, and the first, as far as there is room."""
    write = _stamp(timedelta(microseconds=last - first))
    offset, line = LABEL_WIDTH + 1, [" "] * (LABEL_WIDTH + 1 + canvas.columns)
    width = len(write(first))
    wanted = [(write(last), [len(line) - width])]
    wanted += [
        (write(mark), [offset + column - width // 2, offset + column - width + 1]) for mark, column in zip(marks, columns, strict=True)
    ]
    wanted += [(write(first), [offset])]
    for text, starts in wanted:
        for start in starts:
            begin = max(0, min(start, len(line) - width))
            if not "".join(line[max(0, begin - 1) : begin + width + 1]).strip():
                line[begin : begin + width] = text
                break
    return Text("".join(line).rstrip(), "dim")


def _stamp(span: timedelta) -> Callable[[float], str]:
    """Return how instants of a span are written."""
    form = "%m-%d %H:%M" if span >= DAY else "%H:%M" if span >= DAY / 24 else "%H:%M:%S"
    return lambda time: (EPOCH + timedelta(microseconds=time)).strftime(form)
