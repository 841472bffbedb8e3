"""The HTTP source as a device meets it: a real server on loopback, a real inbox, and what is in it after a kill."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from pipeline.errors import SettingsError
from pipeline.listen.http import HttpOptions
from pipeline.listen.http_receiver import MEDIA_TYPES
from pipeline.listen.inbox import Inbox
from pipeline.schemas import Readings
from pipeline.settings import HTTP_TOKEN, ListenSettings
from pipeline.store.lake import Lake
from tests.fuzz import VALID
from tests.http_server import JSON, READING, SHORT, serving, settings_of, stored
from tests.messages import STAMP, rows
from tests.waiting import until

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "listen", "http", "--port", "0", "--json"]
EVENT = VALID["cloud_event"]
GZIP = {**JSON, "Content-Encoding": "gzip"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def client(here: Path) -> Iterator[httpx.Client]:
    """One server with short messages for the tests that leave it as it is."""
    with serving(here, SHORT) as client:
        yield client


def test_a_message_is_in_the_inbox_when_it_is_answered(client: httpx.Client, here: Path) -> None:
    answer = client.post("/readings/site/7", content=READING, headers=JSON)
    assert (answer.status_code, answer.json()) == (200, {"stored": 1})
    message = stored(here)[-1].message
    assert (message.source, message.payload, message.content_type) == ("http:site/7", READING, "application/json")


@pytest.mark.parametrize(("path", "topic"), [("", ""), ("/", ""), ("/site/7/", "site/7"), ("/Halle%20%C3%A9/a%2Fb", "Halle é/a/b")])
def test_the_topic_is_the_rest_of_the_path(client: httpx.Client, here: Path, path: str, topic: str) -> None:
    assert client.post(f"/readings{path}", content=READING, headers=JSON).status_code == 200
    assert stored(here)[-1].message.topic == topic


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_each_format_is_taken_with_its_type(client: httpx.Client, here: Path, media_type: str) -> None:
    assert client.post("/readings", content=b"x", headers={"Content-Type": f"{media_type.upper()}; charset=UTF-8"}).status_code == 200
    assert stored(here)[-1].message.content_type == media_type


def test_an_event_whose_envelope_is_in_headers_is_read_as_the_same_in_structured_mode(client: httpx.Client, here: Path) -> None:
    headers = {
        **JSON,
        "ce-specversion": "1.0",
        "ce-id": "17",
        "ce-source": "/halle%20%C3%A9",
        "ce-type": "reading",
        "ce-time": "2026-01-01T00:00:00Z",
    }
    assert client.post("/readings/site/7", content=b'{"power": 1.5}', headers=headers).json() == {"stored": 1}
    message = stored(here)[-1].message
    assert rows([message]).select("ts", "device_id", "metric", "value", "seq").rows() == [(STAMP, "/halle é", "power", "1.5", "17")]
    assert client.post("/readings", content=EVENT, headers={**headers, "Content-Type": "application/cloudevents+json"}).status_code == 200
    assert stored(here)[-1].message.payload == EVENT


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/xml"}, READING, 415),
        ({"Content-Type": "text/plain; charset=utf-16"}, READING, 415),
        ({**JSON, "Content-Encoding": "br"}, READING, 415),
        ({**JSON, "Idempotency-Key": ""}, READING, 400),
        ({**JSON, "Idempotency-Key": "k" * 256}, READING, 400),
        ({**JSON, "Origin": "https://elsewhere.example"}, READING, 403),
        (JSON, b"", 400),
        (JSON, b"x" * 1025, 413),
        (GZIP, b"no gzip", 400),
        (GZIP, gzip.compress(READING, mtime=0)[:-9], 400),
        (GZIP, gzip.compress(b"", mtime=0) * 33, 400),
        (GZIP, gzip.compress(b"0" * 1025, mtime=0), 413),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_reason(
    client: httpx.Client, here: Path, headers: dict[str, str], body: bytes, status: int
) -> None:
    before = len(stored(here))
    answer = client.post("/readings", content=body, headers=headers)
    assert answer.status_code == status
    assert "requires" in answer.json()["detail"]
    assert len(stored(here)) == before


def test_a_topic_with_control_characters_is_refused(client: httpx.Client) -> None:
    assert client.post("/readings/a%00b", content=READING, headers=JSON).status_code == 400


def test_a_body_of_the_greatest_length_is_taken_packed_or_not(client: httpx.Client, here: Path) -> None:
    longest = b"x" * 1024
    for body, headers in ((longest, JSON), (gzip.compress(longest), GZIP), (gzip.compress(longest[:512]) * 2, GZIP)):
        assert client.post("/readings", content=body, headers=headers).status_code == 200
        assert stored(here)[-1].message.payload == longest


def test_a_key_counts_once(client: httpx.Client, here: Path) -> None:
    headers = {**JSON, "Idempotency-Key": "once"}
    before = len(stored(here))
    answers = [client.post("/readings/a", content=READING, headers=headers).json() for _ in range(3)]
    assert answers == [{"stored": 1}, {"stored": 0}, {"stored": 0}]
    assert len(stored(here)) == before + 1


def test_a_key_with_another_request_is_a_conflict(client: httpx.Client, here: Path) -> None:
    headers = {**JSON, "Idempotency-Key": "taken"}
    assert client.post("/readings/a", content=READING, headers=headers).status_code == 200
    before = len(stored(here))
    assert client.post("/readings/a", content=READING + b" ", headers=headers).status_code == 409
    assert client.post("/readings/b", content=READING, headers=headers).status_code == 409
    assert len(stored(here)) == before


def test_a_key_that_many_send_at_once_counts_once(client: httpx.Client) -> None:
    """Shown to fail by looking the key up in the inbox alone: none of the eight finds it there."""
    answers: list[int] = []

    def send() -> None:
        answer = httpx.post(f"{client.base_url}/readings", content=READING, headers={**JSON, "Idempotency-Key": "race"}, trust_env=False)
        answers.append(answer.json()["stored"])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0] * 7 + [1]


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer", "Basic secret", "Bearer sécret"])
def test_a_token_is_asked_for_before_anything_is_read(tmp_path: Path, given: str | None) -> None:
    with serving(tmp_path, options=HttpOptions(port=0, token="secret")) as client:
        wrong = {} if given is None else {"Authorization": given.encode()}
        refused = client.post("/readings", content=READING, headers={**JSON, **wrong})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/readings", content=READING, headers={**JSON, "Authorization": "bearer secret"}).status_code == 200
        assert client.get("/health").status_code == 200
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_without_a_token_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(SettingsError, match="requires a token where others can reach it"):
        HttpOptions(host=host)
    assert "secret" not in repr(HttpOptions(host=host, token="secret"))


def test_a_full_inbox_says_when_to_try_again(tmp_path: Path) -> None:
    with serving(tmp_path, ListenSettings(max_inbox_bytes=1024**2)) as client:
        assert client.post("/readings", content=b"x" * 1024**2, headers=JSON).status_code == 200
        refused = client.post("/readings", content=READING, headers=JSON)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        health = client.get("/health")
        assert (health.status_code, health.json()["status"], health.json()["waiting"]) == (503, "full", 1)


def test_an_inbox_that_cannot_be_written_says_when_to_try_again(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        inbox = Inbox(settings_of(tmp_path).state_dir)
        inbox._connection.execute("ALTER TABLE messages RENAME COLUMN payload TO gone")  # what any fault of the disk does: no INSERT works
        inbox.close()
        refused = client.post("/readings", content=READING, headers=JSON)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")


def test_health_counts_what_the_lake_does_not_have(client: httpx.Client, here: Path) -> None:
    client.post("/readings", content=READING, headers=JSON)
    report = client.get("/health").json()
    assert (report["status"], report["waiting"]) == ("ok", stored(here)[-1].seq)
    assert report["lag_s"] > 0
    lake, inbox = Lake(settings_of(here).lake), Inbox(settings_of(here).state_dir)
    lake.create_all()
    lake.append(Readings, Readings.empty(), app_id=f"ingest/inbox/{inbox.name}", seq=inbox.last_seq())
    inbox.close()
    drained = client.get("/health").json()
    assert (drained["waiting"], drained["lag_s"]) == (0, 0.0)


def test_health_counts_by_the_name_that_the_inbox_has_now(tmp_path: Path) -> None:
    """Shown to fail by the name that it had when the server began: after a repair the lake seemed ahead of the inbox, for ever."""
    with serving(tmp_path) as client:
        client.post("/readings", content=READING, headers=JSON)
        lake, inbox = Lake(settings_of(tmp_path).lake), Inbox(settings_of(tmp_path).state_dir)
        lake.create_all()
        lake.append(Readings, Readings.empty(), app_id=f"ingest/{inbox.source}", seq=7)
        assert client.get("/health").json()["waiting"] == -6
        inbox.renew()
        inbox.close()
        assert client.get("/health").json()["waiting"] == 1


@contextmanager
def listener(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the verb as a process, and yield it with its address; its output is in `out` and `err` of a folder."""
    command, err = [*COMMAND, "--lake", str(folder / "lake")], folder / "err"
    with (folder / "out").open("wb") as out, err.open("wb") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, env={**os.environ, HTTP_TOKEN: "secret"})
    try:
        until(lambda: process.poll() is not None or "health=" in err.read_text())
        yield process, err.read_text().partition("post=")[2].split()[0]
    finally:
        process.kill()
        process.wait()


def send(url: str) -> httpx.Response:
    return httpx.post(f"{url}/a", content=READING, headers={**JSON, "Authorization": "Bearer secret"}, trust_env=False, timeout=30)


def test_what_was_answered_outlives_the_process(tmp_path: Path) -> None:
    with listener(tmp_path) as (process, url):
        answer = send(url)
        process.kill()
        assert process.wait(timeout=60) == -9
    assert answer.json() == {"stored": 1}
    assert [item.message.payload for item in stored(tmp_path)] == [READING]


def test_a_listener_that_is_asked_to_end_drains_and_reports_and_its_log_does_not_tell_the_token(tmp_path: Path) -> None:
    with listener(tmp_path) as (process, url):
        send(url)
        process.terminate()
        assert process.wait(timeout=60) == 0
    report = json.loads((tmp_path / "out").read_bytes())
    assert (report["counts"], report["drained"]["messages"]) == ({"stored": 1, "repeated": 0}, 1)
    assert "secret" not in (tmp_path / "err").read_text()
