"""Draw forecasts as fan charts, and error and coverage by lead time, into PNG files.

Called by `pipeline.evaluate.illustrate`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.evaluate.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    add_legend,
    label_dates,
    new_figure,
    numpy_utc,
    save_picture,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_FANS = 6
LINES = (  # the first is ours
    (BLUE, 2.0, "solid"),
    (ORANGE, 1.2, (0, (4, 2))),
    (GREEN, 1.2, (0, (1, 1.5))),
    (PURPLE, 1.2, "dashdot"),
    (GREY, 1.2, (0, (5, 1, 1, 1, 1, 1))),
)


@dataclass(frozen=True)
class Fan:
    """What one fan chart shows: a series around one origin; all values in `unit`, NaN where unknown.

    Attributes:
        series_id: the series.
        origin: label of the last tick the forecast used; step h lies at origin + h · sample_interval.
        sample_interval: spacing of all values.
        context: `(ticks,)`, the last of them at the origin.
        quantiles: `(horizon, levels)`.
        quantile_levels: ascending, with 0.5 among them.
        actual: `(horizon,)`, what came true.
        seasonal_naive: `(horizon,)`, for comparison.
        unit: shown at the axis.
    """

    series_id: str
    origin: datetime
    sample_interval: timedelta
    context: NDArray[np.floating]
    quantiles: NDArray[np.floating]
    quantile_levels: Sequence[float]
    actual: NDArray[np.floating] | None = None
    seasonal_naive: NDArray[np.floating] | None = None
    unit: str | None = None

    def times(self, first: int, last: int) -> NDArray[np.datetime64]:
        """Return the instants (UTC) of the ticks first..last, counted from the origin."""
        return numpy_utc(self.origin) + np.arange(first, last + 1) * np.timedelta64(self.sample_interval)


def draw_fans(fans: Sequence[Fan], path: Path) -> Path:
    """Draw 1 to 6 forecasts as small multiples: last context, median, nested intervals, what came true, seasonal naive.

    Args:
        fans: one panel each, in reading order.
        path: a `.png` file; its folder is made.

    Returns:
        The path.

    Raises:
        DataError: for no fan or more than six, or arrays that do not fit each other.
    """
    if not 1 <= len(fans) <= MAX_FANS:
        raise DataError(f"A picture requires 1 to {MAX_FANS} forecasts; got {len(fans)}. Choose some of the series.")
    for fan in fans:
        _check(fan)
    columns = 1 if len(fans) < 3 else 2
    rows = ceil(len(fans) / columns)
    with styled():
        figure = new_figure(height=4.0 if rows == 1 else 2.4 * rows + 0.6)
        for number, fan in enumerate(fans, start=1):
            _draw_fan(figure.add_subplot(rows, columns, number), fan, wide=columns == 1)
        add_legend(figure)
        return save_picture(figure, path)


def draw_leads(by_step: Mapping[str, pl.DataFrame], path: Path, *, sample_interval: timedelta) -> Path:
    """Draw the mean absolute error by lead time, and beside it the coverage of the 80 % interval with its nominal line.

    Args:
        by_step: for each model the frame of `Scoreboard.by_step`, with errors in standard deviations of each series, so that series of
            different units can share a curve; the first is ours and drawn boldly.
        path: a `.png` file; its folder is made.
        sample_interval: a step's length.

    Returns:
        The path.

    Raises:
        DataError: for no model, or a frame without these columns.
    """
    from matplotlib.ticker import MaxNLocator

    wanted = {"step", "mae", "coverage_80"}
    lacking = [name for name, frame in by_step.items() if frame.is_empty() or not wanted <= set(frame.columns)]
    if not by_step or lacking:
        raise DataError(
            f"A lead plot requires models with {', '.join(sorted(wanted))}; got {', '.join(lacking) or 'no model'}. Score them."
        )
    name_of_unit, length_of_unit = _lead_unit(sample_interval * max(int(frame["step"].to_numpy().max()) for frame in by_step.values()))
    with styled():
        figure = new_figure(height=4.0)
        error, coverage = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
        for rank, (name, frame) in enumerate(by_step.items()):
            leads = frame["step"].to_numpy() * (sample_interval / length_of_unit)
            colour, width, dash = LINES[rank % len(LINES)]
            for axes, values in ((error, frame["mae"].to_numpy()), (coverage, 100 * frame["coverage_80"].to_numpy())):
                axes.plot(leads, values, label=name, color=colour, linewidth=width, linestyle=dash, zorder=9 - rank)
        coverage.axhline(80, color=INK, linewidth=1.0, linestyle=(0, (2, 2)), label="nominal 80 %", zorder=1)
        error.set_title("MAE by lead time (standard deviations)")
        error.set_ylim(bottom=0)
        coverage.set_title("Coverage of the 80 % interval (%)")
        coverage.set_ylim(min(coverage.get_ylim()[0], 60), 100)
        for axes in (error, coverage):
            axes.set_xlabel(f"lead time ({name_of_unit})")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=(1, 1.2, 2, 2.4, 3, 6, 10)))  # hours fall on parts of a day
            axes.margins(x=0.01)
        add_legend(figure)
        return save_picture(figure, path)


def _check(fan: Fan) -> None:
    """Refuse arrays that do not fit each other, naming the series."""
    horizon, num_levels = len(fan.quantiles), len(fan.quantile_levels)
    shapes = [np.shape(part) for part in (fan.quantiles, fan.actual, fan.seasonal_naive) if part is not None]
    levels = [round(float(level), 6) for level in fan.quantile_levels]
    if horizon < 1 or 0.5 not in levels or shapes != [(horizon, num_levels), *[(horizon,)] * (len(shapes) - 1)]:
        raise DataError(
            f"A fan chart requires quantiles (horizon, levels) with the median, and (horizon,) for the rest; got shapes {shapes} and "
            f"levels {levels} for {fan.series_id}. Give one forecast."
        )


def _draw_fan(axes: "Axes", fan: Fan, *, wide: bool) -> None:
    """Draw one panel; the fan opens at the last known value, so that the eye can follow."""
    horizon, num_known = len(fan.quantiles), len(fan.context)
    past, future = fan.times(1 - num_known, 0), fan.times(1, horizon)
    anchored = num_known > 0 and bool(np.isfinite(fan.context[-1]))
    times = np.concatenate([past[-1:], future]) if anchored else future
    quantiles = np.vstack([np.full(len(fan.quantile_levels), fan.context[-1]), fan.quantiles]) if anchored else fan.quantiles
    for lower, upper, label, colour in _bands(fan.quantile_levels):
        axes.fill_between(times, quantiles[:, lower], quantiles[:, upper], color=colour, linewidth=0, label=label, zorder=2)
    if fan.seasonal_naive is not None:
        axes.plot(future, fan.seasonal_naive, color=ORANGE, linewidth=1.0, linestyle=(0, (4, 2)), label="seasonal naive", zorder=3)
    median = [round(float(level), 6) for level in fan.quantile_levels].index(0.5)
    axes.plot(times, quantiles[:, median], color=BLUE, linewidth=1.8, label="median", zorder=4)
    axes.plot(past, fan.context, color=INK, linewidth=1.2, label="observed", zorder=5)
    if fan.actual is not None:
        label, marker = ("actual", "o") if wide else ("observed", "")  # dots crowd a narrow panel
        axes.plot(future, fan.actual, color=INK, linewidth=1.0, marker=marker, markersize=2.4, label=label, zorder=6)
    axes.axvline(fan.times(0, 0)[0], color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    label_dates(axes)
    origin = f"{fan.origin.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    axes.set_title(_shortened(fan.series_id, 60 if wide else 26))
    axes.set_title(f"origin {origin}" if wide else origin, loc="right", fontsize=8, fontweight="normal", color=GREY)
    if fan.unit:
        axes.set_ylabel(fan.unit)


def _bands(levels: Sequence[float]) -> list[tuple[int, int, str, tuple[float, float, float]]]:
    """Return lower and upper index, label and colour of each interval, the widest and palest first."""
    from matplotlib.colors import to_rgb

    rounded = [round(float(level), 6) for level in levels]
    pairs = [
        (rounded.index(level), rounded.index(round(1 - level, 6))) for level in rounded if level < 0.5 and round(1 - level, 6) in rounded
    ]
    bands = []
    for rank, (lower, upper) in enumerate(pairs):
        strength = 0.16 + 0.34 * rank / max(len(pairs) - 1, 1)
        red, green, blue = (1 - strength * (1 - part) for part in to_rgb(BLUE))
        bands.append((lower, upper, f"{100 * (rounded[upper] - rounded[lower]):.3g} %", (red, green, blue)))
    return bands


def _lead_unit(longest: timedelta) -> tuple[str, timedelta]:
    """Return name and length of the unit in which lead times up to `longest` read well."""
    units = (("days", timedelta(days=1), 7), ("hours", timedelta(hours=1), 2), ("minutes", timedelta(minutes=1), 2))
    return next(((name, unit) for name, unit, least in units if longest >= least * unit), ("seconds", timedelta(seconds=1)))


def _shortened(name: str, most: int) -> str:
    """Return a name that fits beside the origin, without its middle where it is too long."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"
