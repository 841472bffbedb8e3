"""A table of units becomes intervals in the catalog: all of them, or none and a sentence."""

from datetime import UTC, datetime

import pytest

from pipeline.errors import DataError
from pipeline.ingest.unit_intervals import ALWAYS, ingest_unit_intervals
from pipeline.settings import Settings
from pipeline.store.known_units import KnownUnits

CHANGE = datetime(2026, 3, 1, tzinfo=UTC)
HEADER = "device_id,metric,unit,valid_from,valid_to"


@pytest.fixture
def ingest(tmp_path):
    """Return a function that ingests one table and returns the intervals that are then known."""
    settings = Settings(lake=str(tmp_path / "lake"))

    def ingested(*lines, name="units.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        ingest_unit_intervals(settings, [tmp_path / name])
        return KnownUnits(settings.state_dir).intervals().rows()

    return ingested


def test_empty_ends_are_always_and_until_further_notice(ingest):
    found = ingest(HEADER, "pump,heat,C,,2026-03-01T00:00:00Z", "pump,heat,degF,2026-03-01T01:00:00+01:00,", "*,flow,l/s,,")
    assert found == [
        ("*", "flow", "L/s", ALWAYS, None),
        ("pump", "heat", "degC", ALWAYS, CHANGE),
        ("pump", "heat", "degF", CHANGE, None),
    ]


def test_the_same_table_again_changes_nothing(ingest):
    assert ingest(HEADER, "pump,heat,C,,") == ingest(HEADER, "pump,heat,C,,", "pump,heat,C,,")


def test_columns_of_stamps_may_be_left_out_and_lines_may_be_json(ingest):
    assert ingest('{"device": "pump", "metric": "heat", "unit": "K"}', name="units.ndjson") == [("pump", "heat", "K", ALWAYS, None)]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["device_id,unit", "pump,K"], "requires the columns device_id, metric and unit.*has 'device_id', 'unit'"),
        ([HEADER, "pump,heat,,,"], "requires a unit in every row"),
        ([HEADER, "pump,heat,K,2026-03-01 00:00,"], "stamps with a zone in valid_from; .* '2026-03-01 00:00'"),
        ([HEADER, "pump,heat,K,,", "pump,heat,degC,,"], "one interval for each start; got several for pump/heat"),
        ([HEADER, "pump,heat,K,,", "pump,heat,degC,2026-03-01T00:00:00Z,"], "do not overlap; got K and degC at once for pump/heat"),
    ],
)
def test_a_table_that_cannot_be_used_leaves_no_trace(ingest, lines, sentence):
    known = ingest(HEADER, "fan,heat,K,,", name="known.csv")
    with pytest.raises(DataError, match=sentence):
        ingest(*lines)
    assert ingest(HEADER, "fan,heat,K,,", name="known.csv") == known
