"""The catalog's file: durable, shared by processes, brought up from any older form, and refused where it is of no use."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store.catalog import Catalog
from pipeline.store.catalog_file import FILE_NAME, MIGRATIONS, transaction
from tests.rivals import race

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "lake" / "state")


def test_a_run_that_an_older_tidecast_began_is_finished_by_this_one(catalog: Catalog) -> None:
    """Shown to fail by leaving the rows of unfinished runs as they were."""
    catalog.state_dir.mkdir(parents=True)
    with closing(sqlite3.connect(catalog.state_dir / FILE_NAME)) as connection:
        for statement in (statement for statements in MIGRATIONS[:3] for statement in statements):
            connection.execute(statement)
        connection.execute("INSERT INTO unfinished_ingests VALUES ('files', '{\"pump/heat\": 1767268800000000}')")
        connection.execute("PRAGMA user_version = 3")
        connection.commit()
    assert catalog.begin_ingest("files").rows() == [("pump/heat", NOON, None, None)]


def test_writes_are_durable_when_the_call_returns(catalog: Catalog) -> None:
    with transaction(catalog.state_dir) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_processes_may_make_and_fill_one_catalog_at_once(catalog: Catalog) -> None:
    """Three processes open a folder that is not there yet.

    Shown to fail by migrating outside a transaction; and, once in some thousand openings, by changing the journal mode in place.
    """
    race(
        "import os, sys; from pathlib import Path; from pipeline.store.catalog import Catalog",
        "[Catalog(Path(sys.argv[1])).set_position(f'{os.getpid()} {number}', number) for number in range(20)]",
        str(catalog.state_dir),
    )
    with transaction(catalog.state_dir) as connection:
        assert connection.execute("SELECT count(*) FROM positions").fetchone() == (60,)


def test_file_of_a_newer_tidecast_is_refused(catalog: Catalog) -> None:
    catalog.set_position("mqtt", 5)
    with sqlite3.connect(catalog.state_dir / FILE_NAME) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="Use the tidecast that wrote it"):
        catalog.position("mqtt")


def test_file_that_is_no_database_is_told(catalog: Catalog) -> None:
    catalog.state_dir.mkdir(parents=True)
    (catalog.state_dir / FILE_NAME).write_text("this is not a database, whatever its name says")
    with pytest.raises(StoreError, match=r"got .*catalog.db: file is not a database"):
        catalog.series()
