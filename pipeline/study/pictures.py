"""The pictures of a study of depth: differences with intervals, time scales of the layers, and what a budget of trials buys.

Called by `pipeline.study.comparison`. One panel for each wiring, side by side.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.evaluate.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, add_legend, new_figure, save_picture, styled
from pipeline.study.cells import DEPTHS, REFERENCE_DEPTH, WIRINGS, Cell
from pipeline.study.depth_report import CellReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Item = TypeVar("Item")
COLOURS = dict(zip(DEPTHS, (ORANGE, INK, BLUE, GREEN, PURPLE), strict=True))


def draw_differences(rows: Sequence[CellReport], path: Path) -> Path:
    """Draw the loss of each depth against that of depth 2, with 95 % intervals; a void cell is hollow."""

    def draw(axes: "Axes", of_wiring: Sequence[CellReport]) -> None:
        axes.axhline(0, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), label=f"depth {REFERENCE_DEPTH}", zorder=1)
        for row in of_wiring:
            x = DEPTHS.index(row.cell.depth)
            if row.difference is None:
                axes.plot([x], [0], "o", color=INK, zorder=3)
                continue
            middle, low, high = (100 * share for share in (row.difference.estimate, row.difference.low, row.difference.high))
            axes.plot([x, x], [low, high], color=BLUE, linewidth=2.0, zorder=2)
            label, fill = ("void: best learning rate at a border", "white") if row.is_void else ("estimate and 95 % interval", BLUE)
            axes.plot([x], [middle], "o", color=BLUE, markerfacecolor=fill, label=label, zorder=3)
        axes.set_xticks(range(len(DEPTHS)), [str(depth) for depth in DEPTHS])
        axes.set_xlabel("layers")

    return _by_wiring([(row.cell, row) for row in rows], draw, f"CRPS against depth {REFERENCE_DEPTH} (%), lower is better", path)


def draw_memory(rows: Sequence[CellReport], path: Path) -> Path:
    """Draw for each stack how long each of its layers remembers a change of one input, in ticks."""

    def draw(axes: "Axes", of_wiring: Sequence[CellReport]) -> None:
        for row in of_wiring:
            layers, colour = range(1, row.cell.depth + 1), COLOURS[row.cell.depth]
            axes.plot(layers, row.gone, "o-", color=colour, linewidth=1.6, markersize=4, label=f"depth {row.cell.depth}")
            axes.plot(layers, row.faded, "o:", color=colour, linewidth=1.2, markersize=3, markerfacecolor="white")
        axes.set_yscale("log")
        axes.set_xticks(range(1, max(DEPTHS) + 1))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("layer; 1 is next to the inputs")

    return _by_wiring([(row.cell, row) for row in rows], draw, "ticks until a change has faded to 1 % (dotted: 1/e)", path)


def draw_budget(cells: Sequence[tuple[Cell, Sequence[float]]], path: Path) -> Path:
    """Draw the best validation loss that so many trials of each cell lead one to expect."""

    def draw(axes: "Axes", of_wiring: Sequence[tuple[Cell, Sequence[float]]]) -> None:
        for cell, losses in of_wiring:
            expected = expected_best(losses)
            axes.plot(range(1, len(expected) + 1), expected, ".-", color=COLOURS[cell.depth], linewidth=1.4, label=f"depth {cell.depth}")
        axes.set_xticks(range(1, 1 + max(len(losses) for _, losses in of_wiring)))
        axes.set_xlabel("trials")

    return _by_wiring([(pair[0], pair) for pair in cells], draw, "expected best validation loss", path)


def expected_best(losses: Sequence[float]) -> list[float]:
    """Return the lowest of 1, 2, … losses drawn with replacement from those found, as it is to be expected.

    Source: Dodge et al. 2019, "Show Your Work: Improved Reporting of Experimental Results", equation 1.

    >>> expected_best([1.0, 3.0])
    [2.0, 1.5]
    """
    ascending, num = sorted(losses), len(losses)
    return [
        sum(loss * ((1 - rank / num) ** draws - (1 - (rank + 1) / num) ** draws) for rank, loss in enumerate(ascending))
        for draws in range(1, num + 1)
    ]


def _by_wiring(items: Sequence[tuple[Cell, Item]], draw: "Callable[[Axes, Sequence[Item]], None]", title: str, path: Path) -> Path:
    """Draw one panel for each wiring, with the same scale."""
    with styled():
        figure = new_figure(height=4.0)
        first = None
        for column, wiring in enumerate(WIRINGS, start=1):
            first = axes = figure.add_subplot(1, len(WIRINGS), column, sharey=first)
            axes.set_title(f"{wiring} wiring")
            axes.set_ylabel(title if column == 1 else "")
            draw(axes, [item for cell, item in items if cell.wiring == wiring])
        add_legend(figure)
        return save_picture(figure, path)
