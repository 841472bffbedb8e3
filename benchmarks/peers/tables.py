"""The side-by-side tables: every forecaster scored on the same origins, what it cost, and whether its time ran out.

Called by `python -m benchmarks.peers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

METRICS = ("wql", "mase", "mse", "mae", "coverage80")
BY_LEAD = ("wql", "mae", "coverage80")
UNKNOWN = "–"


@dataclass(frozen=True)
class Row:
    """One forecaster.

    Attributes:
        name: as the tables have it.
        scores: as `benchmarks.accuracy.scores` gives them; None of a peer that failed.
        training_s: CPU seconds; None where nobody said.
        forecasting_s: CPU seconds; None where nobody said.
        budget: the time it had and how its training ended, or why it failed.
        is_cut_off: whether its time ran out.
    """

    name: str
    scores: dict[str, Any] | None
    training_s: float | None
    forecasting_s: float | None
    budget: str
    is_cut_off: bool = False

    @property
    def label(self) -> str:
        """The name, marked where the time ran out."""
        return f"{self.name} (cut off)" if self.is_cut_off else self.name


def leads_of(horizon: int) -> list[int]:
    """Return the steps that the tables by lead show: the first, the quarters and the last, such as 1, 24, 48, 72 and 96."""
    return sorted({1, *(max(horizon * quarter // 4, 1) for quarter in (1, 2, 3)), horizon})


def overall(rows: Sequence[Row]) -> str:
    """Return the table of all metrics, the best wQL first, as Markdown."""
    header = ["forecaster", *METRICS, "train s", "forecast s", "budget"]
    body = [
        [row.label, *(_cell(_number(row, name)) for name in METRICS), _seconds(row.training_s), _seconds(row.forecasting_s), row.budget]
        for row in _ranked(rows)
    ]
    return _markdown(header, body)


def by_lead(rows: Sequence[Row], metric: str, horizon: int) -> str:
    """Return the table of one metric by lead, in the order of the overall table, as Markdown."""
    leads = leads_of(horizon)
    body = [[row.label, *(_cell(_number(row, metric, lead)) for lead in leads)] for row in _ranked(rows)]
    return _markdown([f"{metric} at lead", *map(str, leads)], body)


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Return the rows by wQL; those without one come last."""
    return sorted(rows, key=lambda row: (_number(row, "wql") is None, _number(row, "wql") or 0.0))


def _number(row: Row, metric: str, lead: int | None = None) -> float | None:
    """Return a score, of one lead if one is given."""
    if row.scores is None:
        return None
    value: float | None = row.scores[metric] if lead is None else row.scores["by_lead"][metric][lead - 1]
    return value


def _cell(value: float | None) -> str:
    """Return a score to four significant digits."""
    return UNKNOWN if value is None else f"{value:.4g}"


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f}"


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *([cell.replace("|", "/") for cell in line] for line in body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
