"""A server that is named and does not answer is one sentence, before anything is begun."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import SettingsError


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, with a password."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://me:s@secret@127.0.0.1:{held.getsockname()[1]}/api"


@pytest.mark.parametrize("verb", [["ingest", "readings.csv"], ["serve"]])
def test_a_named_server_that_does_not_answer_is_refused_at_once(
    verb: list[str], nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown to fail by leaving the first word to Prefect: a traceback of a hundred lines."""
    monkeypatch.chdir(tmp_path)
    Path("readings.csv").write_text("device_id,ts,flow\nnorth,2026-01-01T00:00Z,1\n")
    with temporary_settings({PREFECT_API_URL: nobody}):
        done = CliRunner().invoke(app, verb)
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith("PREFECT_API_URL requires the address of a Prefect server that answers; got http://127.0.0.1:")
    assert "Connection refused" in str(done.exception)
    assert "secret" not in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["readings.csv"]
