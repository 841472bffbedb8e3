"""Law 12, from lines to observations: what is sent again, and in what order and batches it comes, makes no difference."""

import math
from datetime import UTC, datetime, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from pipeline.clock import ReplayClock
from pipeline.ingest.fleet import LIVE_FAULTS, FaultSpec, FleetSpec
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.ingest.simulate import UNITS_FILE, simulate, write_fleet
from pipeline.ingest.unit_intervals import ingest_unit_intervals
from pipeline.schemas import Quarantine, Readings
from pipeline.settings import load_settings
from pipeline.store.lake import Lake
from tests.arrivals import FAR, MINUTE, arrive, new_lake, regularised, stored, with_grid

START = datetime(2026, 1, 1, tzinfo=UTC)
SERIES = ("a", "b")

reading = st.builds(
    lambda series, minute, value, delay, seq: (series, START + minute * MINUTE, value, START + (minute + delay) * MINUTE, seq),
    st.sampled_from(SERIES),
    st.integers(0, 20),
    st.one_of(st.floats(0, 1e9), st.sampled_from([None, math.nan, math.inf])),
    st.sampled_from([0, 0, 1, 4, 9, 30]),
    st.integers(0, 2),
)


@st.composite
def deliveries(draw):
    """Readings, and the same ones as batches in any order, some of them sent twice; a run may follow each batch, at any instant."""
    readings = draw(st.lists(reading, min_size=8, max_size=20))
    again = draw(st.lists(st.sampled_from(readings), max_size=5))
    order = draw(st.permutations(readings + again))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=3)))
    batches = [order[first:last] for first, last in zip([0, *cuts], [*cuts, len(order)], strict=True) if first < last]
    runs = draw(st.lists(st.sampled_from([None, 10, 20, 90]), min_size=len(batches), max_size=len(batches)))
    return readings, list(zip(batches, runs, strict=True))


@pytest.mark.parametrize("aggregation", ["mean", "counter"])
@settings(max_examples=10, deadline=None)
@given(delivery=deliveries())
def test_any_delivery_of_the_same_readings_gives_the_same_table(tmp_path_factory, aggregation, delivery):
    """All revisions of all ticks are equal bit by bit, whether everything came at once or piecemeal, with runs in between.

    The series' grids are decided before: a grid follows the first readings by design, and then stays.
    Shown to fail by letting the reading stored first win a stamp; by not recomputing the tick after a counter's changed tick; by not
    looking again at ticks that were open in an earlier run; and by appending where stored rows had to be replaced.
    """
    readings, steps = delivery
    at_once, piecemeal = new_lake(tmp_path_factory.mktemp("once")), new_lake(tmp_path_factory.mktemp("steps"))
    for lake in (at_once, piecemeal):
        with_grid(lake, 5 * MINUTE, aggregation, *SERIES)
    arrive(at_once, readings)
    for batch, run_at in steps:
        arrive(piecemeal, batch)
        regularised(piecemeal, START if run_at is None else START + run_at * MINUTE)
    for lake in (at_once, piecemeal):
        regularised(lake, FAR)
    assert_frame_equal(stored(piecemeal), stored(at_once), check_exact=True)


@settings(max_examples=5, deadline=None)
@given(readings=st.lists(reading, min_size=1, max_size=20))
def test_the_same_readings_again_change_nothing(tmp_path_factory, readings):
    """A whole batch that is delivered and regularised a second time writes not one row.

    Shown to fail by counting stamps that were sent twice twice in a sum.
    """
    lake = new_lake(tmp_path_factory.mktemp("again"))
    with_grid(lake, 5 * MINUTE, "sum", *SERIES)
    arrive(lake, readings)
    regularised(lake)
    before = stored(lake)
    arrive(lake, readings)
    assert regularised(lake).observations_written == 0
    assert_frame_equal(stored(lake), before, check_exact=True)
    assert before.select(pl.struct("series_id", "ts", "revision").is_unique().all()).item()


FLEET = FleetSpec(
    num_devices=4,
    days=15,
    seed=6,
    metrics=("temperature", "power"),
    faults=FaultSpec.only(*LIVE_FAULTS, "late", "corrected", "clock_jump", rate=0.0039),
)
BY_ARRIVAL = ("is_late", "source")  # what had come before, and the file


def ingested(folder, lines, batch_rows):
    """Ingest lines as one file; return the readings, what was refused and why, and the observations."""
    write_fleet(FLEET, folder / "fleet")
    settings = load_settings(folder / "fleet" / "tidecast.toml", lake=str(folder / "lake"), ingest={"batch_rows": batch_rows})
    ingest_unit_intervals(settings, [folder / "fleet" / UNITS_FILE])
    (folder / "lines.ndjson").write_bytes(b"\n".join(lines))
    ingest_paths(settings, [folder / "lines.ndjson"], IngestOptions(), ReplayClock(FLEET.start + timedelta(days=5)))
    regularised(settings)
    lake = Lake(settings.lake)
    readings = lake.scan(Readings).drop(BY_ARRIVAL).collect().sort(Readings.key)
    refused = lake.scan(Quarantine).select("payload", "error_code", "error_text").unique().collect()
    return readings, refused.sort("payload"), stored(settings)


@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_any_order_of_the_same_lines_gives_the_same_tables(tmp_path_factory, data):
    """Clocks that are reset, outages, units by registry, corrections: only the mark `is_late` knows in what order the lines came.

    Shown to fail by letting a sequence number be an identity, and by comparing `is_late` too.
    """
    events, ledger = simulate(FLEET)
    lines = events["payload"].to_list()
    assert ledger["fault"].n_unique() == len(LIVE_FAULTS) + 3
    chance = Random(data.draw(st.integers(0, 2**32)))
    shuffled = chance.sample(lines, len(lines)) + chance.sample(lines, 50)
    chance.shuffle(shuffled)
    first = ingested(tmp_path_factory.mktemp("in-order"), lines, 10_000)
    second = ingested(tmp_path_factory.mktemp("shuffled"), shuffled, data.draw(st.sampled_from([500, 10_000])))
    for table, other in zip(first, second, strict=True):
        assert_frame_equal(table, other, check_exact=True)
