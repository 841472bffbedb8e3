"""How good live forecasts have been of late: error, bias, pinball and coverage of those that came true, by series, lead or model.

Called by the verb `scores` and, for its last day, by `pipeline.query.watch`. Reads the scores table alone: nothing is computed again,
so a report says what was known when each step was scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import polars as pl
from deltalake import DeltaTable

from pipeline.errors import SettingsError
from pipeline.query.locate import named
from pipeline.schemas import Scores
from pipeline.store.lake import Lake, read
from pipeline.store.scores import scan_scores

By = Literal["series", "lead", "model"]
# Series of one metric share a unit, those of different metrics do not: an error is never averaged over both.
GROUPS: dict[By, dict[str, pl.Expr]] = {
    "series": {"series_id": pl.col("series_id")},
    "lead": {"metric": pl.col("series_id").str.split("/").list.last(), "lead": pl.col("ts") - pl.col("origin")},
    "model": {"metric": pl.col("series_id").str.split("/").list.last(), "model_version": pl.col("model_version")},
}
MEASURES = {
    "scored": pl.len(),
    "mae": pl.col("error").abs().mean(),
    "bias": pl.col("error").mean(),
    "pinball": pl.col("pinball").mean(),
    "coverage": pl.col("in_80").mean(),
}


@dataclass(frozen=True)
class ScoreReport:
    """How good the forecasts of a period's targets were.

    Attributes:
        start: targets after this instant count; None where nothing has been scored.
        end: the newest target that has been scored, of any series.
        rows: the columns of the grouping, then `scored` (steps), `mae` and `bias` (mean of actual − median: positive where forecasts
            were too low), `pinball` (mean over the levels), all in the metric's unit, and `coverage` (share of the actuals within the
            80 % interval).
    """

    start: datetime | None
    end: datetime | None
    rows: pl.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"start": self.start, "end": self.end, "rows": self.rows.to_dicts()}


def query_scores(lake: str, *, series: Sequence[str] | None = None, last: timedelta = timedelta(days=1), by: By = "series") -> ScoreReport:
    """Report on the forecasts that came true of late.

    Args:
        lake: folder or URI of the lake.
        series: series ids or patterns; None means all.
        last: how long a period, counted back from the newest target that has been scored: a stream that has stopped keeps its report.
        by: one row for each series, or for each metric and lead time, or for each metric and model.

    Raises:
        SettingsError: for a period that is not positive, or another grouping.
        StoreError: where the lake cannot be read.
    """
    if last <= timedelta(0):
        raise SettingsError(f"A report on scores requires last > 0; got {last}. Give a duration such as 1d.")
    if by not in get_args(By):
        raise SettingsError(f"A report on scores requires by as one of {', '.join(get_args(By))}; got {by!r}. Choose one.")
    store = Lake(lake)
    end = newest_target(store.open(Scores))
    scan = scan_scores(store) if series is None else scan_scores(store).filter(named(series))
    if end is not None:
        scan = scan.filter(pl.col("ts") > end - last)
    groups = GROUPS[by]
    rows = read(scan.with_columns(**groups).group_by(*groups).agg(**MEASURES).sort(*groups))
    return ScoreReport(None if end is None else end - last, end, rows)


def newest_target(handle: DeltaTable) -> datetime | None:
    """Return the newest target time in the scores table, from its log alone (to the millisecond); None where it is empty."""
    files = pl.DataFrame(handle.get_add_actions(flatten=True))
    return None if files.is_empty() else files["max.ts"].max()  # type: ignore[return-value]
