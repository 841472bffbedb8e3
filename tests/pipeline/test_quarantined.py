"""What could not be used is counted by reason and source, and shown so that nothing in it reaches the terminal as more than text."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.query.printable import printable
from pipeline.query.quarantined import SHOWN_CHARACTERS, read_quarantine, shown
from pipeline.schemas import Quarantine
from pipeline.store.lake import Lake
from pipeline.store.readings import append_quarantine

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ROWS = [  # connector, payload, code; the newest last
    ("file:a.csv", b"1", "missing_value"),
    ("file:a.csv", b"2", "missing_value"),
    ("file:b.csv", b"3", "missing_value"),
    ("mqtt:plant/1", b"\x1b[31m\xff{", "unparseable_message"),
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    lake.create_all()
    frame = pl.DataFrame(
        [(*row, f"{number}", "It requires more.", NOON + timedelta(hours=number), NOON.date()) for number, row in enumerate(ROWS)],
        schema=["connector", "payload", "error_code", "position", "error_text", "received_at", "ingest_date"],
        orient="row",
    )
    append_quarantine(lake, Quarantine.conform(frame), source="test", seq=1)
    return lake


def test_payloads_are_counted_by_reason_and_source_and_the_newest_come_first(lake):
    report = read_quarantine(lake, limit=2)
    assert report.counts.rows() == [
        ("missing_value", "file:a.csv", 2),
        ("missing_value", "file:b.csv", 1),
        ("unparseable_message", "mqtt:plant/1", 1),
    ]
    assert (report.total, report.newest["position"].to_list()) == (4, ["3", "2"])
    assert report.newest.select("num_bytes", "payload").row(0) == (7, r"\x1b[31m\xff{")


def test_only_what_was_asked_for_is_counted(lake):
    assert read_quarantine(lake, connector="file:*").total == 3
    assert read_quarantine(lake, connector="file:a.csv", code="missing_value").total == 2
    assert read_quarantine(lake, code="missing").total == 0


def test_the_codes_that_there_are_are_told_whatever_is_asked_for(lake):
    assert read_quarantine(lake, code="missing").codes == ["missing_value", "unparseable_message"]


@given(st.binary(max_size=2_000))
def test_nothing_that_a_terminal_obeys_is_shown(payload):
    """Shown to fail by decoding alone."""
    text = shown(payload)
    assert text.isprintable()
    assert len(text) <= SHOWN_CHARACTERS + 1


def test_marks_that_turn_or_hide_text_are_written_out():
    assert printable("a\u202eb\u200bc\ud800 °C") == r"a\u202eb\u200bc\ud800 °C"


def test_what_is_cut_says_so():
    assert shown(b"x" * SHOWN_CHARACTERS) == "x" * SHOWN_CHARACTERS
    assert shown(b"x" * 9_999) == "x" * SHOWN_CHARACTERS + "…"
