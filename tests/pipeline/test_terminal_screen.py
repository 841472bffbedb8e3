"""What is drawn: fixed frames, sign for sign, and no frame that is larger than its terminal."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.query.terminal_chart import draw_chart, draw_spark
from pipeline.query.terminal_screen import Screen
from pipeline.query.watch import DayScore, Fan, Look, SeriesView
from pipeline.schemas import UTC_US

START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = START + 24 * HOUR + timedelta(minutes=5)
WAVE = [10 + 5 * math.sin(hour / 12 * math.pi) for hour in range(31)]


def frame(first: int, **columns: list[float | None]) -> pl.DataFrame:
    """Return hourly labels from an hour on, with columns of values."""
    ts = [START + hour * HOUR for hour in range(first, first + len(next(iter(columns.values()))))]
    return pl.DataFrame({"ts": ts, **columns}, schema={"ts": UTC_US, **dict.fromkeys(columns, pl.Float64)})


def wave() -> SeriesView:
    """A day of a sine with a gap of two hours, and six hours of a widening fan."""
    median = WAVE[25:]
    lower, upper = ([value + sign * (1 + step / 3) for step, value in enumerate(median)] for sign in (-1, 1))
    fan = Fan(START + 24 * HOUR, NOW - timedelta(minutes=4), "3-1f0c9a52", "ok", frame(25, lower=lower, median=list(median), upper=upper))
    history = frame(0, value=[None if hour in (9, 10) else value for hour, value in enumerate(WAVE[:25])])
    return SeriesView("pump-1/flow", "m³/h", HOUR, START + 24 * HOUR, history, fan, DayScore(576, 0.3123, -0.021, 0.78, 1))


def drawn(look: Look, width: int, height: int, *, unicode: bool = True, now: datetime = NOW) -> list[str]:
    return [line.plain.rstrip() for line in Screen(look, now).lines(width, height, unicode=unicode)]


@pytest.mark.parametrize("height", [3, 30])
def test_no_name_or_unit_moves_the_cursor(height: int) -> None:
    """A lake of before such names were refused has them. Shown to fail by drawing names as they are."""
    look = Look((replace(wave(), series_id="a\x1b[2J/\u202eb", unit="\x9b1m"),), 1, NOW)
    assert "".join(drawn(look, 100, height)).isprintable()


def look_at(*views: SeriesView) -> Look:
    return Look(views, len(views), START + 24 * HOUR)


def test_a_chart_in_braille() -> None:
    """The line breaks where nothing was observed, and nothing joins it to the fan."""
    assert drawn(look_at(wave()), 60, 13) == [
        "pump-1/flow           10 m³/h at 00:00:00  reading 5 min ago",
        "   17.67 │                                             ⡀⠄⠄⠆⠅",
        "         │     ⢀⡠⠔⠒⠒⠒⠒⠢⠄                             ⡀⠆⣀⠤⠔⠒⠒",
        "         │  ⡠⠔⠊⠁                                   ⢀⠤⠒⠉⡅⠅⠅⠃⠅",
        "         │⠔⠊                ⠉⠢⢄⡀                ⢀⡠ ⠁⠁⠁",
        "         │                     ⠈⠒⠤⡀          ⢀⠤⠒⠁",
        "       5 │                        ⠈⠑⠢⢄⣀⣀⣀⣀⡠⠔⠊⠁",
        "         └───────────────────────────────────────┴──────────",
        "          03-02 00:00                            03-03 06:00",
        "forecast  from 00:00:00 · ok · model 3-1f0c9a52 · made 4 mi…",
        "last day  MAE 0.3123 · bias −0.021 · 80 % interval held 78 …",
        "",
        "2026-03-03 00:05:00 UTC",
    ]


def test_a_chart_without_unicode() -> None:
    assert drawn(look_at(wave()), 60, 13, unicode=False) == [
        "pump-1/flow           10 m?/h at 00:00:00  reading 5 min ago",
        "   17.67 |                                               :::",
        "         |       *******                              ::oooo",
        "         |   ****                                  :oooo::::",
        "         |***               ***                  * o:",
        "         |                     *****        *****",
        "       5 |                          ********",
        "         +---------------------------------------+----------",
        "          03-02 00:00                            03-03 06:00",
        "forecast  from 00:00:00 - ok - model 3-1f0c9a52 - made 4 mi~",
        "last day  MAE 0.3123 - bias -0.021 - 80 % interval held 78 ~",
        "",
        "2026-03-03 00:05:00 UTC",
    ]


def test_more_series_than_fit_are_a_line_each() -> None:
    bare = replace(wave(), series_id="pump-2/flow", fan=None, day=None, history=wave().history.head(0), last_reading=None)
    ahead = replace(wave(), series_id="a-device-with-a-long-name/temperature", last_reading=NOW + 3 * HOUR)
    assert drawn(Look((wave(), bare, ahead), 40, START + 24 * HOUR), 80, 6) == [
        "series                               newest     age      recent     status  80 %",
        "pump-1/flow                              10   5 min ▅▃▂▁▁▁▂▃▄▆█         ok  78 %",
        "pump-2/flow                               –       –                      –     –",
        "a-device-with-a-long-name/tempera…       10  −3.0 h ▅▃▂▁▁▁▂▃▄▆█         ok  78 %",
        "2026-03-03 00:05:00 UTC · 37 more series than fit",
    ]


def test_a_narrow_table_keeps_the_names_and_the_newest_values() -> None:
    assert drawn(Look((wave(),), 2, None), 22, 5)[:2] == ["series          newest", "pump-1/flow         10"]


def test_a_series_without_a_forecast_says_so() -> None:
    lines = drawn(look_at(replace(wave(), fan=None, day=None)), 80, 14)
    assert lines[-4:-2] == ["forecast  none yet", "last day  no forecast has come true in it"]


def test_a_forecast_that_is_over_and_scores_of_another_day_say_so() -> None:
    """Shown to fail by calling every day the last one."""
    lines = drawn(look_at(wave()), 80, 14, now=NOW + 48 * HOUR)
    assert lines[0].endswith("10 m³/h at 03-03 00:00  reading 2.0 d ago")
    assert lines[-4].endswith("made 2.0 d ago · over")
    assert lines[-3].startswith("day to 03-03 00:00  MAE 0.3123 · bias −0.021 · 80 % interval held 78 % of 576")


def test_a_constant_a_single_value_and_nothing_are_drawn() -> None:
    constant = replace(wave(), fan=None, history=frame(0, value=[7.0] * 10))
    assert draw_chart(constant, 40, 4)[0].plain.strip().startswith("10.5")
    single = replace(wave(), fan=None, history=frame(0, value=[7.0]))
    assert sum(sign not in " │┴─└" for line in draw_chart(single, 40, 4)[:4] for sign in line.plain[10:]) == 1
    nothing = replace(wave(), fan=None, history=frame(0, value=[None, None]))
    assert draw_chart(nothing, 40, 4)[0].plain.strip() == "nothing observed in this time"
    assert len(draw_chart(nothing, 40, 4)) == len(draw_chart(single, 40, 4)) == 6


def test_a_spark_leaves_gaps_empty() -> None:
    assert draw_spark(replace(wave(), history=frame(0, value=[0.0, None, 3.5, 7.0])), 6) == "  ▁ ▅█"
    assert draw_spark(replace(wave(), history=frame(0, value=[0.0, None, 3.5, 7.0])), 3, unicode=False) == " _#"


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.none() | st.floats(), max_size=40),
    fan=st.lists(st.floats(width=32), max_size=12),
    width=st.integers(1, 120),
    height=st.integers(1, 50),
    num_series=st.integers(1, 5),
    unicode=st.booleans(),
)
def test_no_frame_is_larger_than_its_terminal(values, fan, width, height, num_series, unicode) -> None:
    """Whatever the values: also infinite, not a number, and a range that overflows."""
    view = replace(wave(), history=frame(0, value=values), fan=None)
    if fan:
        steps = frame(41, lower=sorted(fan), median=fan, upper=list(reversed(fan)))
        view = replace(view, fan=replace(wave().fan, steps=steps))
    lines = Screen(look_at(*[view] * num_series), NOW).lines(width, height, unicode=unicode)
    assert len(lines) <= max(3, height)
    assert max(line.cell_len for line in lines) <= width
    assert unicode or all(line.plain.isascii() for line in lines)


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", True), ("ascii", False)])
def test_the_console_decides_which_signs_are_used(encoding: str, expected: bool, tmp_path) -> None:
    with (tmp_path / "frame").open("w", encoding=encoding) as file:
        Console(file=file, width=60).print(Screen(look_at(wave()), NOW, height=14))
    assert ("⠉" in (tmp_path / "frame").read_text(encoding=encoding)) is expected


def test_a_look_that_failed_is_said_below_the_last_picture() -> None:
    lines = Screen(look_at(wave()), NOW, problem="A read of the lake requires whole Parquet files").lines(60, 13)
    assert (lines[0].plain[:11], lines[-1].plain) == ("pump-1/flow", "A read of the lake requires whole Parquet files")
