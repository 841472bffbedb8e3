"""What the command line writes, and how it reads durations and instants."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from flows.cli_options import parse_duration, parse_instant
from flows.console import fail, jsonable, log_to_stderr, note, report_epoch, stdout, table, watch_training, write_json


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t))
)
def test_every_report_becomes_strict_json(report: object) -> None:
    """Shown to fail by returning floats as they are: NaN is no JSON."""
    json.dumps(jsonable(report), allow_nan=False)


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"at": datetime(2026, 1, 1, tzinfo=UTC), "took": timedelta(seconds=3), "picture": Path("fan.png"), "mase": float("inf")})
    written = capsys.readouterr()
    assert json.loads(written.out) == {"at": "2026-01-01T00:00:00+00:00", "took": 3.0, "picture": "fan.png", "mase": None}
    assert not written.err


def test_nothing_that_a_device_calls_itself_reaches_the_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Shown to fail by leaving out any of the four; 0x9b opens an escape sequence of its own, and json leaves it as it is."""
    name = "d\x1b[2J\x9b1m\u202e"
    fail(name)
    note(name)
    stdout().print(table([{"series": name}]))
    write_json({"series": name})
    out, err = capsys.readouterr()
    assert (out + err).replace("\n", "").isprintable()
    assert json.loads(out[out.index("{") :]) == {"series": name}


def test_a_line_of_the_log_is_one_line_whatever_a_topic_is_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown to fail by the formatter of logging: the topic would write a line that looks like ours."""
    monkeypatch.setattr(logging.root, "handlers", [])
    log_to_stderr()
    logging.getLogger("pipeline.listen").warning("undecodable source=%s", "mqtt:a\nERROR all is lost\x1b[2J")
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    fail("ingest requires a file; got [nothing]. " + "Name one. " * 40)
    written = capsys.readouterr()
    assert not written.out
    assert written.err.count("\n") == 1
    assert "[nothing]" in written.err


@given(st.integers(0, 5_000), st.sampled_from([("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)]))
def test_durations_are_numbers_times_units(number: int, unit: tuple[str, int]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == timedelta(seconds=number * unit[1])


@pytest.mark.parametrize("text", ["", "1", "h", "1 hour", "1h 30", "-1h", "1y"])
def test_a_duration_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="A duration requires"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["2018-02-20T00:00Z", "2018-02-20T01:00+01:00", "2018-02-20T00:00:00Z"])
def test_instants_are_utc(text: str) -> None:
    assert parse_instant(text) == datetime(2018, 2, 20, tzinfo=UTC)
    assert parse_instant(text).tzinfo is UTC


@pytest.mark.parametrize("text", ["2018-02-20", "2018-02-20T00:00"])
def test_an_instant_without_an_offset_is_refused_as_a_reading_is(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"requires an offset or Z, for UTC; got '2018-02-20.*Write 2018-02-20T00:00:00Z"):
        parse_instant(text)


def test_an_instant_that_is_none_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="An instant requires ISO 8601"):
        parse_instant("yesterday")


def test_epochs_reach_only_who_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with watch_training(max_seconds=1.0):
        report_epoch(1, 9, 0.5, 0.6)
    report_epoch(2, 9, 0.4, 0.5)
    assert capsys.readouterr().out == ""
