"""What the readings table promises: what says something new is kept, what repeats is not, and every change is told."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.schemas import Quarantine, Readings
from pipeline.store.lake import Lake, read
from pipeline.store.maintenance import compact
from pipeline.store.readings import append_quarantine, append_readings, changed_since, split_duplicates

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
INGESTED = NOON + timedelta(days=1)

Event = tuple[int, float | None, int, int]  # stamp, value, arrival (minutes after noon) and sequence number


def readings(*events: Event, source: str = "mqtt", **columns: object) -> pl.DataFrame:
    """Return readings of one series whose times of arrival are their own."""
    rows = [
        {"ts": NOON + stamp * MINUTE, "value": value, "received_at": NOON + arrival * MINUTE, "source_seq": seq}
        for stamp, value, arrival, seq in events
    ]
    frame = pl.DataFrame(rows, schema={name: Readings.columns[name] for name in ("ts", "value", "received_at", "source_seq")})
    constant = {"source": source, "series_id": "pump/heat", "device_id": "pump", "metric": "heat", "unit": None, "quality": 0}
    constant |= {"ingested_at": INGESTED, "is_late": False, "ingest_date": INGESTED.date(), **columns}
    return Readings.conform(frame.with_columns(pl.lit(value).alias(name) for name, value in constant.items()))


def from_file(*values: float | None, first_seq: int = 0, source: str = "file:a.csv") -> pl.DataFrame:
    """Return readings of one stamp from a file that does not say when they arrived."""
    events = [(0, value, 0, first_seq + row) for row, value in enumerate(values)]
    return readings(*events, source=source, received_at=INGESTED)


def deliver(lake: Lake, frame: pl.DataFrame) -> tuple[int, int]:
    """Store what is fresh; return how many rows were fresh and how many duplicate."""
    fresh, duplicate = split_duplicates(lake, frame)
    append_readings(lake, fresh, source="test", seq=lake.version(Readings) + 1)
    return fresh.height, duplicate.height


def table(lake: Lake) -> pl.DataFrame:
    return read(lake.scan(Readings)).sort(Readings.key)


def counting_value(lake: Lake) -> float | None:
    return table(lake)["value"].to_list()[-1]


def counted(events: Sequence[Event], at: int) -> dict[int, float | None]:
    """Return the value of each stamp as known at an arrival, by the rule of the table and nothing else."""
    known = sorted((event for event in events if event[2] <= at), key=lambda event: (event[2], event[3], event[1]))
    counts: dict[int, float | None] = {}
    taken: set[tuple[int, float | None, int]] = set()
    for stamp, value, _, seq in known:
        if (stamp, value, seq) not in taken and counts.get(stamp) != value:
            counts[stamp] = value
            taken.add((stamp, value, seq))
    return counts


def new_lake(folder: Path) -> Lake:
    lake = Lake(str(folder))
    lake.create_all()
    return lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return new_lake(tmp_path / "lake")


events = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([1.0, 2.0]), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=10)


def test_a_repetition_leaves_no_trace_in_a_batch_as_it_leaves_none_between_batches(lake: Lake) -> None:
    """Shown to fail by the first of equal readings alone: the second of these is no reading, so the last one is none of it again."""
    batches = [[(0, 1.0, 0, 0), (0, 1.0, 0, 1)], [(0, 2.0, 1, 0), (0, 1.0, 1, 1)]]
    at_once, by_turns = lake, new_lake(Path(lake.uri).with_name("by-turns"))
    deliver(at_once, readings(*batches[0], *batches[1]))
    for batch in batches:
        deliver(by_turns, readings(*batch))
    assert table(at_once).select(Readings.key).rows() == table(by_turns).select(Readings.key).rows()
    assert counting_value(at_once) == counting_value(by_turns) == 1.0


@settings(max_examples=15, deadline=None)
@given(events=events, cuts=st.sets(st.integers(1, 3), max_size=2), data=st.data())
def test_at_every_instant_the_same_value_counts_however_it_was_delivered(tmp_path_factory, events, cuts, data) -> None:
    """Batches follow the time of arrival; inside them any order, and earlier batches come again at any time.

    Shown to fail by taking every stored (series_id, ts, value) for a duplicate, and by comparing with the newest stored row alone.
    """
    lake = new_lake(tmp_path_factory.mktemp("lake"))
    bounds = [-1, *sorted(cuts), 99]
    batches = [[event for event in events if low < event[2] <= high] for low, high in pairwise(bounds)]
    for number, batch in enumerate(batches):
        deliver(lake, readings(*data.draw(st.permutations(batch))))
        deliver(lake, readings(*batches[data.draw(st.integers(0, number))]))
    kept = [((ts - NOON) // MINUTE, value, (at - NOON) // MINUTE, seq) for _, ts, at, seq, value in table(lake).select(Readings.key).rows()]
    assert all(counted(kept, at) == counted(events, at) for at in range(5))
    assert deliver(lake, readings(*events)) == (0, len(events))


distinct_values = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.none(), st.floats()), st.integers(0, 3), st.integers(0, 2)),
    max_size=8,
    unique_by=lambda event: (event[0], repr(event[1] and event[1] + 0.0)),  # -0.0 is 0.0
)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), events=distinct_values)
def test_any_order_of_readings_gives_the_same_table(tmp_path_factory, data, events) -> None:
    """Where no stamp returns to an earlier value, the rows themselves are the same, whatever is sent twice and in what batches.

    Shown to fail by `==` in place of `eq_missing`: a value after a null is then lost.
    """
    at_once, piecemeal = new_lake(tmp_path_factory.mktemp("once")), new_lake(tmp_path_factory.mktemp("steps"))
    deliver(at_once, readings(*events))
    order = data.draw(st.permutations(events + events))
    cut = data.draw(st.integers(0, len(order)))
    deliver(piecemeal, readings(*order[:cut]))
    deliver(piecemeal, readings(*order[cut:]))
    assert table(piecemeal).equals(table(at_once))


def test_every_row_is_in_one_of_the_two_frames_in_its_order(lake: Lake) -> None:
    deliver(lake, readings((0, 1.0, 0, 0)))
    frame = readings((2, 5.0, 2, 4), (0, 1.0, 0, 0), (1, 3.0, 1, 2), (1, 3.0, 1, 2), (0, 2.0, 3, 3))
    fresh, duplicate = split_duplicates(lake, frame)
    assert fresh.equals(frame[[0, 2, 4]])
    assert duplicate.equals(frame[[1, 3]])


@pytest.mark.parametrize("value", [1.0, None, float("nan"), float("inf")])
def test_same_value_sent_again_later_is_a_duplicate(lake: Lake, value: float | None) -> None:
    assert deliver(lake, readings((0, value, 1, 1))) == (1, 0)
    assert deliver(lake, readings((0, value, 1, 1), (0, value, 2, 5))) == (0, 2)


def test_correction_back_to_an_earlier_value_counts(lake: Lake) -> None:
    """Shown to fail by taking every stored (series_id, ts, value) for a duplicate."""
    for event in [(0, 1.0, 1, 1), (0, 2.0, 2, 2), (0, 1.0, 3, 3)]:
        assert deliver(lake, readings(event)) == (1, 0)
    assert counting_value(lake) == 1.0


def test_correction_is_not_undone_by_the_first_event_again(lake: Lake) -> None:
    deliver(lake, readings((0, 1.0, 1, 1), (0, 2.0, 2, 2)))
    assert deliver(lake, readings((0, 1.0, 1, 1))) == (0, 1)
    assert counting_value(lake) == 2.0


def test_a_redelivered_reading_does_not_undo_its_correction(lake: Lake) -> None:
    """Shown to fail by looking at arrivals alone: the first reading, received again, would correct its own correction."""
    deliver(lake, readings((0, 1.0, 1, 1), (0, 2.0, 2, 2)))
    assert deliver(lake, readings((0, 1.0, 3, 1))) == (0, 1)
    assert counting_value(lake) == 2.0
    assert deliver(lake, readings((0, 1.0, 4, 1), source="mqtt:another")) == (1, 0)


def test_a_correction_of_a_stored_reading_counts_though_an_earlier_delivery_of_that_comes_with_it(lake: Lake) -> None:
    """Shown to fail by leaving the stored row out of the comparison for the sake of its first delivery."""
    deliver(lake, readings((0, 1.0, 3, 1)))
    assert deliver(lake, readings((0, 1.0, 1, 1), (0, 2.0, 2, 2), (0, 2.0, 4, 3))) == (3, 0)
    assert counting_value(lake) == 2.0


def test_file_without_arrival_times_read_again_changes_nothing(lake: Lake) -> None:
    """Its second reading is received later than the correction in it, and must not undo that.

    Shown to fail by treating an assumed time of arrival like one that the file gives, and by a join in which null equals nothing.
    """
    deliver(lake, from_file(1.0, None, 1.0, 3.0))
    later = from_file(1.0, None, 1.0, 3.0).with_columns(pl.col("received_at", "ingested_at") + MINUTE)
    assert deliver(lake, later) == (0, 4)
    assert counting_value(lake) == 3.0


@pytest.mark.parametrize("cut", range(5))
def test_file_without_arrival_times_may_be_cut_into_any_batches(lake: Lake, cut: int) -> None:
    """Shown to fail without the look at the source's own numbers: the second 1.0 is then lost at cut 2."""
    whole = from_file(1.0, 2.0, 1.0, 1.0)
    deliver(lake, whole[:cut])
    deliver(lake, whole[cut:])
    assert table(lake)["value"].to_list() == [1.0, 2.0, 1.0]


def test_old_value_from_another_file_without_arrival_times_is_a_duplicate(lake: Lake) -> None:
    deliver(lake, from_file(1.0, 2.0))
    assert deliver(lake, from_file(1.0, first_seq=9, source="file:b.csv")) == (0, 1)
    assert counting_value(lake) == 2.0


def test_same_stamp_of_another_series_is_no_duplicate(lake: Lake) -> None:
    deliver(lake, readings((0, 1.0, 0, 0)))
    assert deliver(lake, readings((0, 1.0, 0, 0), series_id="pump/flow")) == (1, 0)


def test_empty_batch_is_split_into_nothing(lake: Lake) -> None:
    assert [part.height for part in split_duplicates(lake, Readings.empty())] == [0, 0]


def test_batch_of_a_source_is_applied_once(lake: Lake) -> None:
    frame = readings((0, 1.0, 0, 0))
    assert append_readings(lake, frame, source="mqtt", seq=4)
    assert not append_readings(lake, frame, source="mqtt", seq=4)
    assert lake.last_seq(Readings, "ingest/mqtt") == 4


def test_quarantine_has_numbers_of_its_own(lake: Lake) -> None:
    row = {"connector": "mqtt", "position": "7", "payload": b"\xff", "error_code": "x", "error_text": "y", "received_at": NOON}
    append_readings(lake, readings((0, 1.0, 0, 0)), source="mqtt", seq=4)
    assert append_quarantine(lake, pl.DataFrame([{**row, "ingest_date": NOON.date()}]), source="mqtt", seq=4)
    assert read(lake.scan(Quarantine))["payload"].to_list() == [b"\xff"]


def stamps(changed: pl.DataFrame) -> list[int]:
    assert changed.columns == ["series_id", "device_id", "metric", "ts"]
    return [(ts - NOON) // MINUTE for ts in changed["ts"]]


@pytest.fixture
def grown(lake: Lake) -> Lake:
    """A lake with stamps 0, 1 and 2 in versions 1, 2 and 3."""
    for stamp in range(3):
        deliver(lake, readings((stamp, 1.0, stamp, 0)))
    return lake


def test_only_what_came_after_a_version_has_changed(grown: Lake) -> None:
    assert [stamps(changed_since(grown, version)) for version in range(4)] == [[0, 1, 2], [1, 2], [2], []]


def test_correction_is_a_change_of_its_stamp_once(grown: Lake) -> None:
    deliver(grown, readings((1, 2.0, 8, 1), (1, 3.0, 9, 2)))
    assert stamps(changed_since(grown, 3)) == [1]


def test_compaction_is_no_change(grown: Lake) -> None:
    compact(grown)
    assert grown.version(Readings) == 4
    assert stamps(changed_since(grown, 3)) == []
    assert stamps(changed_since(grown, 2)) == [2]


def test_all_have_changed_when_the_log_is_gone(grown: Lake) -> None:
    """Shown to fail by `allow_out_of_range=True`: nothing has changed then."""
    grown.open(Readings).create_checkpoint()
    for version in range(3):
        Path(grown.table_uri(Readings), "_delta_log", f"{version:020}.json").unlink()
    assert stamps(changed_since(grown, 1)) == [0, 1, 2]


def test_all_have_changed_when_the_files_are_gone(grown: Lake) -> None:
    compact(grown)
    grown.open(Readings).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert stamps(changed_since(grown, 2)) == [0, 1, 2]


def test_all_have_changed_when_the_version_is_of_another_table(grown: Lake) -> None:
    assert stamps(changed_since(grown, 99)) == [0, 1, 2]
