"""An explanation adds up to the forecast that was issued, rests on what was known then, and puts each reading where it belongs."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.errors import DataError
from pipeline.evaluate.explain import REST, Explanation, explain
from pipeline.evaluate.explain_picture import draw_explanation
from pipeline.forecast.rolling import forecast
from pipeline.store.forecasts import scan_forecasts
from pipeline.store.lake import Lake, read
from tests.lakes import CONFIG, HOUR, START, TestLake, hourly_readings, random_weights
from tests.pipeline.test_pictures import size

SERIES, NUM_HOURS = "north/temperature", 90
MISSED = START + (NUM_HOURS - 1 - 22) * HOUR  # a day before the target of step 2


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> TestLake:
    """A lake with a champion, two series and one reading that never came."""
    lake = TestLake.at(tmp_path_factory.mktemp("lake"))
    lake.ingest(hourly_readings(NUM_HOURS).filter(pl.col("ts") != MISSED))
    lake.register(random_weights())
    return lake


def amounts(found: Explanation) -> dict[str, float]:
    return {part.part: part.amount for part in found.parts}


@pytest.mark.parametrize("step", [1, CONFIG.horizon])
def test_the_parts_add_up_to_the_forecast_that_is_issued(lake: TestLake, step: int) -> None:
    """Shown to fail by starting the window from a fresh state."""
    forecast(lake.settings, lake.clock)
    issued = read(scan_forecasts(Lake(lake.settings.lake), series=[SERIES]))["quantiles"].to_list()[-1]
    found = explain(lake.settings, SERIES, step=step)
    assert found.forecast == pytest.approx(issued[(step - 1) * 9 + 4], rel=1e-6)
    assert sum(amounts(found).values()) + found.unexplained == pytest.approx(found.forecast, rel=1e-12)
    assert abs(found.unexplained) < 1e-3 * abs(found.forecast - found.level)


def test_readings_are_grouped_by_what_they_are_to_the_target(lake: TestLake) -> None:
    """The tick a day before the target was missed: the reading before it stands for it. Shown to fail by looking at the tick's own lag."""
    found = explain(lake.settings, SERIES, step=2)
    assert list(amounts(found)) == [
        "level (running mean)",
        REST,
        "the last reading",
        "others, up to 1 day old",
        "1 day before the target",
        "1 day before the origin",
        "older readings",
        "further multiples of 1 day before the target",
        "hedging (last value, recent mean)",
    ]
    assert amounts(found)["the last reading"] == pytest.approx(found.amounts_T[-1])
    assert amounts(found)["1 day before the target"] == pytest.approx(found.amounts_T[-1 - 23])
    assert np.isnan(found.readings_T[-1 - 22])


def test_the_lags_that_moved_it_most_come_first(lake: TestLake) -> None:
    found = explain(lake.settings, SERIES)
    sizes = [abs(lag.amount) for lag in found.lags]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == np.abs(found.amounts_T).max()
    readings = dict(hourly_readings(NUM_HOURS).filter(series_id=SERIES).select("ts", "value").iter_rows())
    assert all(lag.reading == readings[lag.ts] and lag.ts == found.origin - lag.lag * HOUR for lag in found.lags)


def test_an_earlier_origin_knows_nothing_of_later_readings(lake: TestLake, tmp_path: Path) -> None:
    """Shown to fail by explaining with the whole panel whatever the origin."""
    origin = START + 60 * HOUR
    shorter = TestLake.at(tmp_path)
    shorter.ingest(hourly_readings(61))
    shorter.register(random_weights())
    then, now = explain(shorter.settings, SERIES), explain(lake.settings, SERIES, origin=origin + timedelta(minutes=20))
    assert (then.origin, now.origin) == (origin, origin)
    np.testing.assert_allclose(now.amounts_T, then.amounts_T, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"series": "*/temperature"}, "one series; got 2 that match"),
        ({"series": "moon"}, "got none"),
        ({"series": SERIES, "step": 7}, "a step of 1 to 6"),
        ({"series": SERIES, "origin": START - HOUR}, "readings known at its origin"),
        ({"series": SERIES, "origin": START + NUM_HOURS * HOUR}, "an origin that has been, up to 2026-03-05T17:00Z"),
    ],
)
def test_what_cannot_be_explained_is_a_sentence(lake: TestLake, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        explain(lake.settings, **arguments)


def test_the_picture_is_drawn(lake: TestLake, tmp_path: Path) -> None:
    path = draw_explanation(explain(lake.settings, SERIES, step=3), tmp_path / "new" / "why.png")
    assert size(path) == (1200, 742)
