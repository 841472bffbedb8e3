"""Late is what comes behind the watermark of its own series, however the readings of others come and however they are cut into batches."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.watermark import Watermarks
from pipeline.schemas import UTC_US
from pipeline.store.catalog import ARRIVED

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LATENESS, IDLE = 2 * MINUTE, 5 * MINUTE
SCHEMA = {"series_id": pl.String, "ts": UTC_US, "received_at": UTC_US, "source_seq": pl.Int64, "is_history": pl.Boolean}

rows = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-9, 9), st.integers(0, 30), st.booleans()), max_size=20)


def readings(rows):
    frame = [
        (series, NOON + ts * MINUTE, NOON + received * MINUTE, seq, history) for seq, (series, ts, received, history) in enumerate(rows)
    ]
    return pl.DataFrame(frame, schema=SCHEMA, orient="row")


def fresh(*known, lateness=LATENESS, idle=IDLE):
    catalog = pl.DataFrame(list(known), schema={"series_id": pl.String, **dict.fromkeys(ARRIVED, UTC_US)}, orient="row")
    return Watermarks.resume(catalog, lateness, idle)


def late(marks, *rows):
    return marks.mark(readings(rows))["is_late"].to_list()


def test_a_reading_is_late_only_beyond_the_allowed_lateness():
    assert late(fresh(), ("a", 5, 0, False), ("a", 3, 1, False), ("a", 2, 2, False)) == [False, False, True]


def test_the_order_of_arrival_decides_not_the_order_of_rows():
    assert late(fresh(), ("a", 0, 1, False), ("a", 5, 0, False)) == [True, False]


def test_what_the_catalog_has_seen_counts():
    known = fresh(("a", NOON, NOON, None), ("c", None, None, None))
    assert late(known, ("a", -3, 0, False), ("b", -3, 0, False), ("c", -3, 0, False)) == [True, False, False]


def test_history_is_never_late_but_moves_the_watermark():
    assert late(fresh(("a", NOON, NOON, None)), ("a", -9, 0, True), ("a", 5, 1, True), ("a", 2, 2, False)) == [False, False, True]


def test_what_comes_after_a_silence_is_late_where_its_ticks_have_closed():
    """Ten minutes of silence, then all that was measured in it, in order: nothing newer has come before any of it.

    Shown to fail without the idle rule; by letting it lift the watermark for the first reading alone; and by one that counts from the
    first arrival ever.
    """
    burst = [("a", minute, 11, False) for minute in range(1, 12)]
    assert late(fresh(("a", NOON, NOON, None)), *burst) == [minute < 11 - 5 for minute in range(1, 12)]
    assert late(fresh(), *burst) == [False] * 11


def test_a_silence_up_to_the_idle_timeout_is_none():
    assert late(fresh(("a", NOON, NOON, None)), ("a", -2, 5, False), ("a", -1, 6, False)) == [False, False]
    assert late(fresh(("a", NOON, NOON, None)), ("a", 0, 6, False)) == [True]


def test_a_silence_never_makes_late_what_the_allowed_lateness_promises_is_not():
    """Shown to fail by an idle timeout below the allowed lateness."""
    known = fresh(("a", NOON, NOON, None), lateness=10 * MINUTE)
    assert late(known, ("a", 0, 9, False), ("a", 1, 11, False)) == [False, False]


@settings(deadline=None)  # a busy machine is no failure
@given(rows, rows)
def test_watermark_never_moves_back(first, second):
    before = fresh(("a", NOON, NOON, NOON))
    before = before.advance(before.mark(readings(first)))
    after = before.advance(before.mark(readings(second)))
    both = before.reached.join(after.reached, on="series_id", how="left", suffix="_after")
    assert both.select(pl.all_horizontal((pl.col(f"{name}_after") >= pl.col(name)).fill_null(value=True).all() for name in ARRIVED)).item()
    assert len(both) == len(before.reached)


@settings(deadline=None)
@given(rows)
def test_one_series_says_nothing_of_another(rows):
    frame = readings(rows)
    together = fresh().mark(frame)
    assert together.filter(series_id="a").equals(fresh().mark(frame.filter(series_id="a")))


@settings(deadline=None)
@given(rows, st.sets(st.integers(1, 20), max_size=5))
def test_any_batches_in_order_of_arrival_mark_the_same_rows_late(rows, cuts):
    """Shown to fail by forgetting the last arrival between batches, and by forgetting what the last silence had closed."""
    frame = readings(rows).sort("received_at", "source_seq")
    marks, parts = fresh(("a", NOON, NOON, None)), []
    borders = [0, *sorted(cut for cut in cuts if cut < len(frame)), len(frame)]
    for first, last in pairwise(borders):
        parts.append(marks.mark(frame[first:last]))
        marks = marks.advance(parts[-1])
    at_once = fresh(("a", NOON, NOON, None))
    whole = at_once.mark(frame)
    assert pl.concat(parts).equals(whole)
    assert marks.reached.equals(at_once.advance(whole).reached)
