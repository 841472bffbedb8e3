"""The look of every picture, and the way it reaches a file: without pyplot, so nothing is global and no display is needed.

Called by the modules that draw. Matplotlib is imported when something is drawn. Colours are those of Okabe and Ito (2008), told apart by
readers with any colour vision; lines also differ in width and dash.
"""

import warnings
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK, GREY, GRID = "#1F2933", "#7B8794", "#E4E7EB"
DPI = 150  # 8 x 4 inches are 1200 x 600 pixels
FIRST_IN_LEGEND = ("observed", "actual", "median")


def styled() -> AbstractContextManager[None]:
    """Set the look of what is drawn meanwhile."""
    from matplotlib import rc_context

    return rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.edgecolor": GRID,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "text.color": INK,
            "text.parse_math": False,  # a dollar sign in a series id is a dollar sign
            "xtick.color": GREY,
            "ytick.color": GREY,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "legend.frameon": False,
            "figure.facecolor": "white",
            "axes.facecolor": "white",
        }
    )


def new_figure(height: float) -> "Figure":
    """Return an empty figure 8 inches wide."""
    from matplotlib.figure import Figure

    return Figure(figsize=(8.0, height), dpi=DPI, layout="constrained")


def numpy_utc(instant: datetime) -> np.datetime64:
    """Return an instant as Matplotlib takes it: without a zone, in UTC."""
    return np.datetime64(instant.astimezone(UTC).replace(tzinfo=None), "us")


def label_dates(axes: "Axes") -> None:
    """Label the horizontal axis with instants in UTC, briefly, and let lines reach its ends."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axes.margins(x=0.01)


def add_legend(figure: "Figure") -> None:
    """Draw one legend for all panels, above them: what was measured, the median, then the rest as drawn."""
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = sorted(handles, key=lambda label: FIRST_IN_LEGEND.index(label) if label in FIRST_IN_LEGEND else len(FIRST_IN_LEGEND))
    figure.legend([handles[label] for label in order], order, loc="outside upper center", ncols=len(order), fontsize=8, handlelength=1.8)


def save_picture(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the box in the picture says it
        figure.savefig(path, format="png")
    return path
