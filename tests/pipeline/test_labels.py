"""The labels of stored ticks, read as far back as is needed and no further."""

import polars as pl
import pytest

from pipeline.schemas import Observations
from pipeline.store.labels import labels_of, stored_labels, stored_spans
from pipeline.store.lake import Lake
from pipeline.store.observations import write_observations
from tests.pipeline.test_observations import HOUR, START, rows


@pytest.fixture
def lake(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    lake.create_all()
    return lake


def test_spans_are_those_of_the_whole_table_where_a_series_needs_it(lake):
    write_observations(lake, rows(*(("a", hour, 1.0, 1, 1) for hour in range(100)), ("b", 5, 1.0, 1, 1)), readings_version=1)
    wanted = pl.DataFrame(
        {"series_id": ["a", "b", "new"], "changed_from": [START, None, START]},
        schema={"series_id": pl.String, "changed_from": Observations.columns["ts"]},
    )
    spans = stored_spans(lake.open(Observations), wanted, [START + 90 * HOUR]).sort("series_id")
    assert spans.rows() == [("a", START, START + 99 * HOUR), ("b", START + 5 * HOUR, START + 5 * HOUR)]


def test_stored_labels_are_those_of_the_ticks_asked_for(lake):
    write_observations(lake, rows(("a", 1, None, 1, 1), ("a", 1, 1.0, 2, 9), ("a", 50, 2.0, 1, 1), ("b", 2, 3.0, 1, 1)), readings_version=1)
    asked = rows(("a", 1, 0.0, 1, 1), ("a", 2, 0.0, 1, 1), ("b", 2, 0.0, 1, 1)).select("series_id", "ts")
    assert sorted(stored_labels(lake.open(Observations), asked).rows()) == [("a", START + HOUR), ("b", START + 2 * HOUR)]
    assert labels_of(lake.open(Observations), ["a"]).rows() == [("a", START + HOUR), ("a", START + 50 * HOUR)]
