"""Late is what comes behind the watermark of its own series, however the readings of others come."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.watermark import Watermarks
from pipeline.schemas import UTC_US

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LATENESS = 2 * MINUTE
SCHEMA = {"series_id": pl.String, "ts": UTC_US, "received_at": UTC_US, "source_seq": pl.Int64, "is_history": pl.Boolean}

rows = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-9, 9), st.integers(0, 9), st.booleans()), max_size=20)


def readings(rows):
    frame = [
        (series, NOON + ts * MINUTE, NOON + received * MINUTE, seq, history) for seq, (series, ts, received, history) in enumerate(rows)
    ]
    return pl.DataFrame(frame, schema=SCHEMA, orient="row")


def fresh(known=()):
    return Watermarks.resume(pl.DataFrame(list(known), schema={"series_id": pl.String, "last_ts": UTC_US}, orient="row"), LATENESS)


def newest(marks):
    return dict(marks.newest.rows())


def late(marks, *rows):
    return marks.mark(readings(rows))["is_late"].to_list()


def test_a_reading_is_late_only_beyond_the_allowed_lateness():
    assert late(fresh(), ("a", 5, 0, False), ("a", 3, 1, False), ("a", 2, 2, False)) == [False, False, True]


def test_the_order_of_arrival_decides_not_the_order_of_rows():
    assert late(fresh(), ("a", 0, 1, False), ("a", 5, 0, False)) == [True, False]


def test_what_the_catalog_has_seen_counts():
    assert late(fresh([("a", NOON), ("c", None)]), ("a", -3, 0, False), ("b", -3, 0, False), ("c", -3, 0, False)) == [True, False, False]


def test_history_is_never_late_but_moves_the_watermark():
    assert late(fresh([("a", NOON)]), ("a", -9, 0, True), ("a", 5, 1, True), ("a", 2, 2, False)) == [False, False, True]


@settings(deadline=None)  # a busy machine is no failure
@given(rows, rows)
def test_watermark_never_moves_back(first, second):
    before = fresh([("a", NOON)]).advance(readings(first))
    after = before.advance(readings(second))
    assert all(newest(after)[series] >= instant for series, instant in newest(before).items())


@settings(deadline=None)
@given(rows)
def test_one_series_says_nothing_of_another(rows):
    frame = readings(rows)
    together = fresh().mark(frame)
    assert together.filter(series_id="a").equals(fresh().mark(frame.filter(series_id="a")))


@settings(deadline=None)
@given(rows, st.integers(0, 20))
def test_two_batches_in_order_of_arrival_are_one(rows, cut):
    frame = readings(rows).sort("received_at", "source_seq")
    first, second = frame[:cut], frame[cut:]
    marks = fresh()
    parts = pl.concat([marks.mark(first), marks.advance(first).mark(second)])
    assert parts.equals(marks.mark(frame))
