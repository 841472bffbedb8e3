"""`tidecast listen mqtt` as the process it is: killed at its worst moments, asked to end, and given the wrong words."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tests.brokers import Mosquitto, inbox_of, payloads_of, running
from tests.waiting import until

TIDECAST = [sys.executable, "-c", "from flows.cli import main; main()"]
LISTEN = [*TIDECAST, "listen", "mqtt", "--client-id", "listener", "--json"]
NUMBERS = [b"%d" % number for number in range(60)]


@pytest.fixture
def broker(tmp_path) -> Iterator[Mosquitto]:
    with running(Mosquitto(tmp_path / "broker")) as started:
        yield started


@contextmanager
def listener(broker: Mosquitto, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a listener that has subscribed; its output is in `out` and `err` of a folder."""
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        command = [*LISTEN, "--url", f"mqtt://localhost:{broker.port}", "--lake", str(folder / "lake")]
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **environment})
        try:
            until(lambda: process.poll() is not None or b"subscribed" in (folder / "err").read_bytes())
            yield process
        finally:
            process.kill()
            process.wait()


def test_a_kill_at_any_moment_loses_nothing(broker, tmp_path):
    settings = broker.settings(tmp_path / "lake")
    with listener(broker, tmp_path) as process:
        broker.publish("a", *NUMBERS)
        until(lambda: len(inbox_of(settings)) > 0)
        process.kill()
    with listener(broker, tmp_path):
        until(lambda: set(payloads_of(inbox_of(settings))) == set(NUMBERS))


def test_what_is_stored_but_not_acknowledged_at_a_kill_comes_again(broker, tmp_path):
    settings = broker.settings(tmp_path / "lake")
    with listener(broker, tmp_path, TIDECAST_FAILPOINT="mqtt.before_ack:1") as process:
        broker.publish("a", *NUMBERS)
        assert process.wait(60) == 137
    stored = payloads_of(inbox_of(settings))
    assert stored == NUMBERS[: len(stored)]
    with listener(broker, tmp_path):
        until(lambda: payloads_of(inbox_of(settings))[-len(NUMBERS) :] == NUMBERS)


def test_what_was_acknowledged_before_a_kill_does_not_come_again(broker, tmp_path):
    settings = broker.settings(tmp_path / "lake")
    with listener(broker, tmp_path, TIDECAST_FAILPOINT="mqtt.after_ack:1") as process:
        broker.publish("a", b"first")
        assert process.wait(60) == 137
    with listener(broker, tmp_path):
        broker.publish("a", b"second")
        until(lambda: len(inbox_of(settings)) >= 2)
    assert payloads_of(inbox_of(settings)) == [b"first", b"second"]


def test_a_listener_that_is_asked_to_end_stores_acknowledges_and_drains_what_came_and_exits_with_0(broker, tmp_path):
    with listener(broker, tmp_path) as process:
        broker.publish("a", *NUMBERS)
        process.terminate()
        assert process.wait(60) == 0
    report = json.loads((tmp_path / "out").read_bytes())
    counts = report["counts"]
    stored = payloads_of(inbox_of(broker.settings(tmp_path / "lake")))
    assert counts == {**counts, "received": len(stored), "stored": len(stored), "acknowledged": len(stored), "waiting": 0}
    assert report["drained"]["messages"] == len(stored)
    with listener(broker, tmp_path):  # the session stayed: the rest comes, and nothing comes twice
        until(lambda: payloads_of(inbox_of(broker.settings(tmp_path / "lake"))) == NUMBERS)


def test_a_listener_without_a_client_id_says_what_it_is_for(tmp_path):
    done = CliRunner().invoke(app, ["listen", "mqtt", "--lake", str(tmp_path / "lake")])
    assert "requires a client id, under which the broker keeps messages" in str(done.exception)


def test_a_lake_that_only_a_listener_filled_is_trained_on_and_followed(broker, tmp_path):
    """Shown to fail by training on the observations as they are: there are none."""
    now, lake = datetime.now(UTC), ["--lake", str(tmp_path / "lake")]
    hours = [{"ts": (now - timedelta(hours=age)).isoformat(), "device_id": "pump-1", "flow": age % 24} for age in range(500, -1, -1)]
    with listener(broker, tmp_path) as process:
        broker.publish("site", *(json.dumps(hours[start : start + 100]).encode() for start in range(0, len(hours), 100)))
        until(lambda: len(inbox_of(broker.settings(tmp_path / "lake"))) == 6)
        process.kill()  # the lake may have none of it yet
        process.wait()
    small = ["--horizon", "2", "--max-seconds", "2", "--num-layers", "1", "--hidden-size", "4"]
    trained = CliRunner().invoke(app, ["train", "--no-orchestrator", *small, *lake], catch_exceptions=False)
    assert trained.exit_code == 0, trained.output
    with subprocess.Popen([*TIDECAST, "forecast", "--follow", "--json", *lake], stdout=subprocess.PIPE) as follower:
        tick = json.loads(follower.stdout.readline())
        follower.terminate()
    assert tick["forecast"]["rows_written"] == 1
    assert follower.returncode == 0
