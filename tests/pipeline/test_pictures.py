"""Pictures are PNG files of the size that was promised, for what a lake may hold, and leave no global state behind."""

import struct
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib import rcParams
from matplotlib.image import imread

from pipeline.errors import DataError
from pipeline.evaluate.metrics import ForecastScores
from pipeline.evaluate.pictures import Fan, draw_fans, draw_leads

LEVELS = tuple(tenth / 10 for tenth in range(1, 10))
HORIZON = 12


def fan(**changed: object) -> Fan:
    """Return a fan that narrows nowhere and whose context has a gap."""
    context = np.sin(np.arange(48) / 4)
    context[10:14] = np.nan
    spread = np.linspace(-1, 1, len(LEVELS)) * np.linspace(0.5, 1.5, HORIZON)[:, None]
    given: dict[str, object] = {
        "series_id": "pump-1/flow",
        "origin": datetime(2026, 3, 29, 1, tzinfo=UTC),
        "sample_interval": timedelta(minutes=15),
        "context": context,
        "quantiles": spread,
        "quantile_levels": LEVELS,
    }
    return Fan(**{**given, **changed})


def size(path: Path) -> tuple[int, int]:
    """Return width and height in the header of a PNG file."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


@pytest.mark.parametrize(("num_fans", "expected"), [(1, (1200, 600)), (2, (1200, 810)), (4, (1200, 810)), (6, (1200, 1170))])
def test_one_to_six_series_share_a_picture(tmp_path: Path, num_fans: int, expected: tuple[int, int]) -> None:
    path = draw_fans([fan(series_id=f"pump-{number}/flow") for number in range(num_fans)], tmp_path / "new" / "fan.png")
    assert size(path) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"actual": np.zeros(HORIZON), "seasonal_naive": np.ones(HORIZON), "unit": "l/min"},
        {"actual": np.full(HORIZON, np.nan)},
        {"context": np.array([])},
        {"context": np.full(5, np.nan)},
        {"quantiles": np.zeros((1, 1)), "quantile_levels": (0.5,)},
        {"series_id": "$\\frac$/" + "long/" * 40 + "温度"},
        {"quantile_levels": np.float32(LEVELS).tolist()},
    ],
)
def test_whatever_a_lake_holds_can_be_drawn(tmp_path: Path, changed: dict[str, object]) -> None:
    picture = imread(draw_fans([fan(**changed)], tmp_path / "fan.png"))
    assert picture[0, 0, :3].tolist() == [1.0, 1.0, 1.0]
    assert picture[..., :3].std() > 0.01


def test_lead_plot_shows_error_and_coverage_of_each_model(tmp_path: Path) -> None:
    scores = ForecastScores(HORIZON, LEVELS)
    scores.add(np.zeros((4, HORIZON)), np.tile(np.linspace(-1, 1, 9), (4, HORIZON, 1)))
    empty_steps = scores.by_step().with_columns(mae=pl.when(pl.col("step") > 3).then("mae"))
    path = draw_leads({"tidecast": scores.by_step(), "seasonal naive": empty_steps}, tmp_path / "x.png", sample_interval=timedelta(hours=1))
    assert size(path) == (1200, 600)


def test_drawing_uses_no_pyplot_and_leaves_no_global_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    before = [rcParams[name] for name in ("font.size", "axes.grid", "text.color")]
    draw_fans([fan()], tmp_path / "fan.png")
    assert [rcParams[name] for name in ("font.size", "axes.grid", "text.color")] == before


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 to 6 forecasts; got 0"):
        draw_fans([], tmp_path / "x.png")
    with pytest.raises(DataError, match=r"got shapes \[\(12, 9\), \(3,\)\] and levels .* for pump-1/flow"):
        draw_fans([fan(actual=np.zeros(3))], tmp_path / "x.png")
    with pytest.raises(DataError, match="coverage_80, mae, step; got ours"):
        draw_leads({"ours": pl.DataFrame({"step": [1]})}, tmp_path / "x.png", sample_interval=timedelta(hours=1))
