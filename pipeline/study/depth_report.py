"""What a study of depth found: one row for each cell, and the same as a page for people.

Called by `pipeline.study.comparison`; the pictures beside it are drawn by `pipeline.study.pictures`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pipeline.study.bootstrap import Interval
from pipeline.study.cells import REFERENCE_DEPTH, Cell
from pipeline.study.finals import FLAT

MOST_CLIPPED = 0.2  # of the steps; above it the learning rate does not say how far a step goes
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class CellReport:
    """What came of one depth and wiring.

    Attributes:
        cell: the architecture.
        trials, pruned, failed: of the search.
        learning_rate: of the best trial.
        rate_low, rate_high: the range searched.
        is_void: whether the best rate lies within a tenth of the range's ends, so that a better one may lie beyond.
        validation: best validation loss of the search.
        crps: mean over the fresh seeds at the held-out origins, in standard deviations of the training part.
        crps_spread: standard deviation between those seeds.
        difference: share by which that lies above depth 2 of the same wiring; None for depth 2 itself.
        p_holm: of the difference, with Holm's correction over all differences.
        epochs: of those trainings, mean.
        late_gain: share of the validation loss that the last fifth of the epochs brought, mean over the seeds.
        clipped: share of the steps whose gradient was clipped, mean over the seeds.
        faded, gone: ticks after which a change of one input moves a layer by less than 1/e and 1 % of the most it did; median over seeds.
    """

    cell: Cell
    trials: int
    pruned: int
    failed: int
    learning_rate: float
    rate_low: float
    rate_high: float
    is_void: bool
    validation: float
    crps: float
    crps_spread: float
    difference: Interval | None
    p_holm: float | None
    epochs: float
    late_gain: float
    clipped: float
    faded: tuple[int, ...]
    gone: tuple[int, ...]

    @property
    def caveats(self) -> tuple[str, ...]:
        """What keeps the row from being a fair comparison."""
        found = []
        if self.is_void:
            found.append("void: best learning rate at a border")
        if self.late_gain > FLAT:
            found.append("curve not flat at the end")
        if self.clipped > MOST_CLIPPED:
            found.append(f"more than {MOST_CLIPPED:.0%} of the steps clipped")
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class DepthReport:
    """What a study found.

    Attributes:
        study: its name; the same command goes on with it.
        run_id: of its MLflow run.
        folder: where its report and pictures are.
        series, origins: how many the comparison rests on, and of `seeds` trainings each.
        seeds: of every cell.
        epochs: that every training might have.
        train_end, validation_end, data_end: borders of the periods.
        block_length: origins of a block of the bootstrap.
        num_lags: most ticks that a layer's memory was followed for.
        cells: the rows.
        pictures: file names, in the folder.
    """

    study: str
    run_id: str
    folder: str
    series: int
    origins: int
    seeds: int
    epochs: int
    train_end: datetime
    validation_end: datetime
    data_end: datetime
    block_length: int
    num_lags: int
    cells: tuple[CellReport, ...]
    pictures: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        borders = {name: getattr(self, name).isoformat() for name in ("train_end", "validation_end", "data_end")}
        rows = [{**asdict(row), "name": row.cell.name, "caveats": list(row.caveats)} for row in self.cells]
        return {**asdict(self), **borders, "cells": rows}

    def to_markdown(self) -> str:
        """Return the findings for people, without the pictures."""
        intro = (
            f"Study {self.study}: at most {self.epochs} epochs for every training, {self.seeds} fresh seeds for every cell, compared on "
            f"{self.origins:,} origins of each of {self.series} series after {self.validation_end:%Y-%m-%d %H:%M} UTC, "
            f"drawn in blocks of {self.block_length}."
        )
        return f"{intro}\n\n{self._finding()}\n\n{_table(self.cells)}\n\n{self._memory()}\n"

    def to_page(self) -> str:
        """Return the findings with the pictures, for a file beside them."""
        return "\n".join([self.to_markdown(), *(f"![{name.removesuffix('.png')}]({name})\n" for name in self.pictures)])

    def _finding(self) -> str:
        """Say in a sentence or two which depths differ from depth 2."""
        sure = [row for row in self.cells if row.p_holm is not None and row.p_holm < SIGNIFICANT and not row.is_void]
        parts = [f"{row.cell.name} {_interval(row.difference)}" for row in sure if row.difference is not None]
        said = f"Differs from depth {REFERENCE_DEPTH} of the same wiring (Holm-corrected p < {SIGNIFICANT}): "
        caveats: dict[str, list[str]] = {}
        for row in self.cells:
            for caveat in row.caveats:
                caveats.setdefault(caveat, []).append(row.cell.name)
        told = "; ".join(f"{caveat} ({', '.join(names)})" for caveat, names in caveats.items())
        return said + ("; ".join(parts) or "no cell") + "." + (f" Caveats: {told}." if told else "")

    def _memory(self) -> str:
        """Return each layer's time scale as a table."""
        deepest = max(len(row.gone) for row in self.cells)
        head = "| cell | " + " | ".join(f"layer {layer + 1}" for layer in range(deepest)) + " |\n|---|" + "---|" * deepest
        rows = []
        for row in self.cells:
            scales = [f"{self._ticks(faded)} / {self._ticks(gone)}" for faded, gone in zip(row.faded, row.gone, strict=True)]
            rows.append(f"| {row.cell.name} | " + " | ".join(scales + [""] * (deepest - len(scales))) + " |")
        intro = "Ticks until a change of one input has faded from a layer's state, to 1/e / to 1 % of the most it was:"
        return "\n".join([intro, "", head, *rows])

    def _ticks(self, count: int) -> str:
        return f"≥ {count}" if count >= self.num_lags else str(count)


def _table(cells: Sequence[CellReport]) -> str:
    searched = ["cell", "width", "parameters", "trials (pruned, failed)", "learning rate", "validation"]
    columns = [*searched, "CRPS ± seeds", f"against depth {REFERENCE_DEPTH}", "p (Holm)", "epochs", "last fifth", "clipped"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in cells:
        against = "–" if row.difference is None else _interval(row.difference)
        values = (
            row.cell.name + (" (void)" if row.is_void else ""),
            str(row.cell.hidden_size),
            f"{row.cell.num_parameters:,}",
            f"{row.trials} ({row.pruned}, {row.failed})",
            f"{row.learning_rate:.2g}",
            f"{row.validation:.4f}",
            f"{row.crps:.4f} ± {row.crps_spread:.4f}",
            against,
            "–" if row.p_holm is None else f"{row.p_holm:.3f}",
            f"{row.epochs:.0f}",
            f"{row.late_gain:.1%}",
            f"{row.clipped:.0%}",
        )
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines)


def _interval(interval: Interval) -> str:
    return f"{interval.estimate:+.1%} [{interval.low:+.1%}, {interval.high:+.1%}]"
