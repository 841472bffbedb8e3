"""The picture of an explanation: the readings, below them what each added to the forecast, beside them the sums by part.

Called by `flows.cli_explain`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluate.drawing import BLUE, GREY, INK, ORANGE, label_dates, new_figure, numpy_utc, save_picture, styled
from pipeline.evaluate.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_HEIGHT, PART_HEIGHT = 4.6, 0.55  # inches
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # text over lines
SHARES = (3, 2)  # of the width: time, and the parts


def draw_explanation(explanation: Explanation, path: Path) -> Path:
    """Draw an explanation.

    Args:
        explanation: of one step.
        path: a `.png` file; its folder is made.

    Returns:
        The path.
    """
    with styled():
        figure = new_figure(max(LEAST_HEIGHT, PART_HEIGHT * len(explanation.parts)))
        grid = figure.add_gridspec(2, 2, width_ratios=SHARES)
        readings = figure.add_subplot(grid[0, 0])
        amounts = figure.add_subplot(grid[1, 0], sharex=readings)
        _draw_readings(readings, explanation)
        _draw_amounts(amounts, explanation)
        _draw_parts(figure.add_subplot(grid[:, 1]), explanation)
        return save_picture(figure, path)


def _draw_readings(axes: "Axes", explanation: Explanation) -> None:
    unit = f" ({explanation.unit})" if explanation.unit else ""
    axes.axhline(explanation.level, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), label="level")
    axes.plot(_times(explanation), explanation.readings_T, color=INK, linewidth=1.2, label="observed")
    axes.plot(
        [numpy_utc(explanation.target)], [explanation.forecast], "o", color=BLUE, markersize=4, label=f"median, step {explanation.step}"
    )
    axes.set_title(f"{explanation.series_id}{unit}")
    axes.margins(x=0.01, y=0.2)  # room for the legend
    axes.legend(fontsize=8, loc="upper left", ncols=3)
    axes.tick_params(labelbottom=False)


def _draw_amounts(axes: "Axes", explanation: Explanation) -> None:
    amounts_T = explanation.amounts_T
    axes.vlines(_times(explanation), 0, amounts_T, colors=[BLUE if amount >= 0 else ORANGE for amount in amounts_T], linewidth=1.6)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_title("what each reading added to it")
    label_dates(axes)


def _draw_parts(axes: "Axes", explanation: Explanation) -> None:
    """Draw the parts from the level to the forecast, one below the other, as a waterfall."""
    _, *parts = explanation.parts
    reached = explanation.level
    for row, part in enumerate(parts):
        axes.barh(row, part.amount, left=reached, height=0.6, color=BLUE if part.amount >= 0 else ORANGE)
        axes.annotate(
            f"{part.part}  {part.amount:+.3g}", (0.0, row - 0.34), xycoords=("axes fraction", "data"), fontsize=8, va="bottom", bbox=BEHIND
        )
        reached += part.amount
    axes.axvline(explanation.level, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.axvline(explanation.forecast, color=BLUE, linewidth=1.2)
    axes.set_title(f"from the level {explanation.level:.4g} to the median {explanation.forecast:.4g}", fontsize=9)
    axes.set_ylim(len(parts) - 0.4, -0.8)
    axes.set_yticks([])
    axes.use_sticky_edges = False  # bars would end at the frame
    axes.margins(x=0.04)
    axes.grid(visible=False, axis="y")


def _times(explanation: Explanation) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    """Return the instants (UTC) of the window's ticks."""
    return numpy_utc(explanation.origin) + np.arange(1 - len(explanation.readings_T), 1) * np.timedelta64(explanation.sample_interval)
