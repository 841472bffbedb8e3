"""What the catalog promises: what is known stays known, spans only widen, and threads and processes may share one folder."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.schemas import UTC_US
from pipeline.store.catalog import INSTANTS, SERIES_COLUMNS, Catalog

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KNOWN = {"unit": "degC", "aggregation": "mean", "sample_interval_us": 60_000_000, "grid_offset_us": 0}


def series(series_id: str = "pump/heat", **columns: object) -> pl.DataFrame:
    device_id, metric = series_id.split("/")
    row = {"series_id": series_id, "device_id": device_id, "metric": metric, **columns}
    return pl.DataFrame([row], schema={name: SERIES_COLUMNS[name] for name in row})


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "lake" / "state")


def test_new_catalog_has_the_columns_and_no_series(catalog: Catalog) -> None:
    assert catalog.series().equals(pl.DataFrame(schema=SERIES_COLUMNS))
    assert catalog.series().schema == pl.Schema(SERIES_COLUMNS)


def test_an_attribute_is_what_was_said_last(catalog: Catalog) -> None:
    columns = ["device_id", "name", "value"]
    for value in ("120", "35"):
        catalog.set_attributes(pl.DataFrame([("pump", "area", value), (value, "kind", "fan")], schema=columns, orient="row"))
    assert catalog.attributes().rows() == [("120", "kind", "fan"), ("35", "kind", "fan"), ("pump", "area", "35")]


def test_series_come_back_as_they_were_put_in(catalog: Catalog) -> None:
    instants = {name: NOON + number * HOUR for number, name in enumerate(INSTANTS)}
    put = pl.concat([series(f"pump/{metric}", **KNOWN, **instants) for metric in ("flow", "heat")])
    catalog.upsert_series(put.reverse())
    assert catalog.series().equals(put)


@pytest.mark.parametrize("name", KNOWN)
def test_null_never_replaces_what_is_known_and_a_value_does(catalog: Catalog, name: str) -> None:
    """Shown to fail by `excluded.…` in place of `coalesce(excluded.…, …)`."""
    catalog.upsert_series(series(**KNOWN))
    catalog.upsert_series(series(**{name: None}))
    assert catalog.series()[name].to_list() == [KNOWN[name]]
    catalog.upsert_series(series(**{name: "other" if isinstance(KNOWN[name], str) else 7}))
    assert catalog.series()[name].to_list() != [KNOWN[name]]


instants = st.one_of(st.none(), st.integers(-5, 5).map(lambda hours: NOON + hours * HOUR))


@settings(max_examples=25, deadline=None)
@given(spans=st.lists(st.tuples(instants, instants), min_size=1, max_size=5))
def test_span_of_a_series_covers_all_that_was_ever_said(tmp_path_factory, spans) -> None:
    """Shown to fail by SQLite's `min` and `max` without `coalesce`: they are null when either side is."""
    catalog = Catalog(tmp_path_factory.mktemp("state"))
    for first_ts, last_ts in spans:
        catalog.upsert_series(series(first_ts=first_ts, last_ts=last_ts))
    firsts, lasts = ([instant for instant in side if instant is not None] for side in zip(*spans, strict=True))
    stored = catalog.series().row(0, named=True)
    assert stored["first_ts"] == min(firsts, default=None)
    assert stored["last_ts"] == max(lasts, default=None)


def test_failed_upsert_leaves_no_trace(catalog: Catalog) -> None:
    both = pl.concat([series("pump/flow"), series("pump/heat").with_columns(device_id=pl.lit(None, pl.String))])
    with pytest.raises(StoreError, match="NOT NULL"):
        catalog.upsert_series(both)
    assert catalog.series().is_empty()


def test_default_aggregation_replaces_no_declared_one(catalog: Catalog) -> None:
    catalog.upsert_series(series("pump/flow", aggregation="counter"))
    both = pl.concat([series("pump/flow"), series("pump/heat")])
    catalog.upsert_series(both, default_aggregation="mean")
    assert catalog.series()["aggregation"].to_list() == ["counter", "mean"]


def test_unfinished_ingest_keeps_what_was_stored_when_it_began(catalog: Catalog) -> None:
    """Shown to fail by replacing the row of a run that begins again."""
    catalog.upsert_series(pl.concat([series("pump/flow"), series("pump/heat")]).with_columns(last_ts=pl.Series([None, NOON], dtype=UTC_US)))
    began_with = catalog.begin_ingest("files")
    catalog.upsert_series(series(last_ts=NOON + HOUR, last_received=NOON + 2 * HOUR, resumed_at=NOON))
    assert catalog.begin_ingest("files").rows() == began_with.rows() == [("pump/heat", NOON, None, None)]
    catalog.end_ingest("files")
    assert catalog.begin_ingest("files").rows() == [("pump/heat", NOON + HOUR, NOON + 2 * HOUR, NOON)]


def test_arrivals_of_a_series_only_rise(catalog: Catalog) -> None:
    catalog.upsert_series(series(last_received=NOON, resumed_at=NOON))
    catalog.upsert_series(series(last_received=NOON - HOUR, resumed_at=None))
    assert catalog.series().select("last_received", "resumed_at").rows() == [(NOON, NOON)]


def test_who_retires_a_series_twice_does_not_move_its_instant_and_may_take_it_back(catalog: Catalog) -> None:
    catalog.upsert_series(pl.concat([series("pump/flow"), series("pump/heat")]))
    catalog.retire(["pump/heat"], NOON)
    catalog.retire(["pump/heat"], NOON + HOUR)
    catalog.upsert_series(series(last_received=NOON))  # what arrives says nothing of it
    assert catalog.series()["retired_at"].to_list() == [None, NOON]
    assert catalog.retired(NOON, None) == {"pump/heat"}
    catalog.unretire(["pump/heat"])
    assert catalog.retired(NOON, None) == set()


def test_positions_are_kept_by_source(catalog: Catalog) -> None:
    catalog.set_position("mqtt", 5)
    catalog.set_position("mqtt", 8)
    assert (catalog.position("mqtt"), catalog.position("file")) == (8, None)


def test_threads_share_one_catalog(catalog: Catalog) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: catalog.upsert_series(series(f"pump/{number}")), range(40)))
    assert catalog.series().height == 40


def test_hundred_thousand_series_go_in_and_come_out(catalog: Catalog) -> None:
    numbers = pl.int_range(100_000, eager=True).cast(pl.String)
    fleet = pl.DataFrame({"series_id": "pump/" + numbers, "metric": numbers}).with_columns(device_id=pl.lit("pump"), last_ts=pl.lit(NOON))
    catalog.upsert_series(fleet)
    assert catalog.series()["last_ts"].eq(NOON).sum() == 100_000
