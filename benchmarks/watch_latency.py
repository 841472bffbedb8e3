"""How long one refresh of `tidecast watch` takes in a lake of 10 million forecast points: `python -m benchmarks.watch_latency`.

Builds a lake as an hourly fleet does, one commit for each tick in each of the tables that are watched, and looks at random series:
first with nothing known, then again where nothing has changed, then after each of some further ticks. Prints one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.query_latency import HOUR, LIMIT_MS, START, build, series_names
from pipeline.query.watch import Watch
from pipeline.schemas import Observations, Scores
from pipeline.store.catalog import Catalog
from pipeline.store.lake import Lake
from pipeline.store.observations import write_observations

HISTORY = 96  # ticks before the first origin
FURTHER = 5  # ticks that come while somebody watches


def main() -> None:
    """Build, look, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=2_000)
    parser.add_argument("--origins", type=int, default=210, help="hourly")
    parser.add_argument("--horizon", type=int, default=24, help="steps")
    asked = parser.parse_args()
    names = series_names(asked.series)
    report: dict[str, object] = {"points": asked.series * asked.origins * asked.horizon, "series": asked.series, "limit_ms": LIMIT_MS}
    with tempfile.TemporaryDirectory() as folder:
        lake, catalog = Lake(folder), Catalog(Path(folder) / "state")
        lake.create_all()
        build(lake, names, asked.origins, asked.horizon)
        for number in range(-HISTORY, asked.origins):
            add_tick(lake, catalog, names, number, asked.horizon)
        for number, shown in enumerate((1, 4, 40)):
            first_tick = asked.origins + number * FURTHER
            report[f"look at {shown} series, ms"] = _measure(lake, catalog, names, shown, first_tick, asked.horizon)
    report["heavy_imports"] = sorted({"torch", "mlflow", "prefect", "lightning"} & sys.modules.keys())
    print(json.dumps(report, indent=2))


def add_tick(lake: Lake, catalog: Catalog, names: list[str], number: int, horizon: int) -> None:
    """Commit the observations of one tick and, from the first origin on, the scores of the forecasts that it made mature."""
    rng = np.random.default_rng(number + HISTORY)
    ts = START + number * HOUR
    value = 20 + rng.normal(size=len(names))
    tick = pl.DataFrame({"series_id": names, "value": value}).with_columns(
        ts=pl.lit(ts), observed=True, n_obs=1, revision=1, available_at=pl.lit(ts + timedelta(minutes=1)), event_date=pl.lit(ts.date())
    )
    write_observations(lake, Observations.conform(tick), readings_version=number + HISTORY + 1)
    device = pl.col("series_id").str.split("/")
    known = tick.select("series_id", device_id=device.list.first(), metric=device.list.last(), first_ts="ts", last_ts="ts")
    catalog.upsert_series(known.with_columns(sample_interval_us=HOUR // timedelta(microseconds=1), grid_offset_us=0, unit=pl.lit("°C")))
    steps = pl.DataFrame({"step": range(1, min(horizon, number) + 1)}).with_columns(origin=pl.lit(ts) - pl.col("step") * HOUR)
    if number > 0:
        error = rng.normal(size=len(names) * steps.height)
        matured = tick.select("series_id", "ts", actual="value").join(steps, how="cross").with_columns(error=error, pinball=abs(error) / 3)
        matured = matured.with_columns(model_version=pl.lit("1"), in_80=pl.col("error").abs() < 1.28, scored_at=pl.lit(ts))
        lake.append(Scores, matured.with_columns(origin_date=pl.col("origin").dt.date()), app_id="score/1", seq=number)


def _measure(lake: Lake, catalog: Catalog, names: list[str], shown: int, first_tick: int, horizon: int) -> dict[str, float]:
    """Return milliseconds: a first look, one at an unchanged lake, and the median and the slowest of those after further ticks."""
    chosen = np.random.default_rng(shown).choice(names, shown, replace=False).tolist()
    Watch(lake, catalog, chosen).look(shown)  # warms the file cache up
    watch = Watch(lake, catalog, chosen)
    first, unchanged = _time(watch, shown), _time(watch, shown)
    after = []
    for number in range(first_tick, first_tick + FURTHER):
        add_tick(lake, catalog, names, number, horizon)
        build(lake, names, 1, horizon, first=number)
        after.append(_time(watch, shown))
    return {"first": first, "unchanged": unchanged, "after_a_tick": float(np.median(after)), "after_a_tick_slowest": max(after)}


def _time(watch: Watch, shown: int) -> float:
    started = time.perf_counter()
    watch.look(shown)
    return round((time.perf_counter() - started) * 1000, 1)


if __name__ == "__main__":
    main()
