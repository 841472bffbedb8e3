"""How long a point query takes in a lake of 10 million forecast points: `python -m benchmarks.query_latency`.

Builds a lake as a fleet does, one commit for each hourly origin, and asks for the newest forecast of single series through
`query_forecasts`, warm and in process; then compacts it and asks again. Prints one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from pipeline.query.frames import query_forecasts
from pipeline.schemas import Forecasts
from pipeline.store.forecasts import append_forecasts
from pipeline.store.lake import Lake
from pipeline.store.maintenance import compact

LIMIT_MS = 100.0
LEVELS = [tenth / 10 for tenth in range(1, 10)]
START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def main() -> None:
    """Build, measure, compact, measure, print."""
    asked = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        lake.create_all()
        names = series_names(asked.series)
        written_s = build(lake, names, asked.origins, asked.horizon)
        report: dict[str, object] = {
            "points": asked.series * asked.origins * asked.horizon,
            "series": asked.series,
            "origins": asked.origins,
            "horizon": asked.horizon,
            "written_s": round(written_s, 1),
            "limit_ms": LIMIT_MS,
            "one_file_per_origin": _measure(lake, names, asked.repeats),
        }
        started = time.perf_counter()
        compact(lake)
        report["compacted_s"] = round(time.perf_counter() - started, 1)
        report["compacted"] = _measure(lake, names, asked.repeats)
    report["heavy_imports"] = sorted({"torch", "mlflow", "prefect", "lightning"} & sys.modules.keys())
    print(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=2_000)
    parser.add_argument("--origins", type=int, default=210, help="hourly, so nearly nine daily partitions")
    parser.add_argument("--horizon", type=int, default=24, help="steps")
    parser.add_argument("--repeats", type=int, default=100, help="queries of each kind")
    return parser.parse_args()


def series_names(num_series: int) -> list[str]:
    """Return ids of a fleet, sorted."""
    return [f"plant-{number // 100:02d}.sensor-{number:04d}/temperature" for number in range(num_series)]


def build(lake: Lake, names: list[str], num_origins: int, horizon: int, first: int = 0) -> float:
    """Commit the forecasts of one origin after the other, from the hour `first` on; return the seconds it took."""
    rng = np.random.default_rng(first)
    shape = np.sort(rng.normal(20, 5, (len(names), horizon, len(LEVELS))), axis=-1).astype(np.float32)
    started = time.perf_counter()
    for number in range(first, first + num_origins):
        origin = START + number * HOUR
        values = (shape + rng.normal(0, 1, (len(names), 1, 1)).astype(np.float32)).reshape(len(names), -1)
        constant = {
            "origin": origin,
            "horizon": horizon,
            "sample_interval_us": HOUR // timedelta(microseconds=1),
            "model_version": "1",
            "input_version": number,
            "status": "ok",
            "created_at": origin + timedelta(minutes=1),
            "origin_date": origin.date(),
        }
        frame = pl.DataFrame({"series_id": names, "quantiles": values}).with_columns(
            pl.lit(pl.Series([LEVELS])).first().alias("quantile_levels"), *(pl.lit(value).alias(name) for name, value in constant.items())
        )
        append_forecasts(lake, Forecasts.conform(frame))
    return time.perf_counter() - started


def _measure(lake: Lake, names: list[str], repeats: int) -> dict[str, dict[str, float]]:
    """Time point queries of random series: their newest forecast, the newest as of half-way, and one day of origins."""
    half_way = START + timedelta(days=4)
    questions: dict[str, Callable[[str], pl.DataFrame]] = {
        "latest": lambda name: query_forecasts(lake.uri, series=[name]),
        "latest_as_of": lambda name: query_forecasts(lake.uri, series=[name], as_of=half_way),
        "day_of_origins": lambda name: query_forecasts(lake.uri, series=[name], latest=False, start=half_way, end=half_way + 23 * HOUR),
    }
    rng = np.random.default_rng(1)
    return {question: _time(rng.choice(names, repeats).tolist(), ask) for question, ask in questions.items()}


def _time(series: list[str], ask: Callable[[str], pl.DataFrame]) -> dict[str, float]:
    elapsed = []
    for name in [*series[:3], *series]:  # the first three warm up
        started = time.perf_counter()
        frame = ask(name)
        elapsed.append(1e3 * (time.perf_counter() - started))
        assert not frame.is_empty(), f"{name} must be found"
    p50, p95 = np.quantile(elapsed[3:], [0.5, 0.95])
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p95_over_limit": round(p95 / LIMIT_MS, 3)}


if __name__ == "__main__":
    main()
