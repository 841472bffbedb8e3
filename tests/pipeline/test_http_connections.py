"""Connections to the HTTP source: what slow, silent, rude and too many clients can do to it, and how it ends."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from pipeline.clock import SystemClock
from pipeline.errors import SettingsError
from pipeline.listen import http, http_body, http_protocol
from pipeline.listen.http import HttpOptions, HttpSource
from pipeline.listen.inbox import Inbox
from pipeline.settings import Settings
from tests.http_server import ANY_PORT, JSON, READING, SHORT, connected, serving, settings_of, stored
from tests.waiting import until


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One server with short messages for the tests that leave it as it is."""
    with serving(tmp_path_factory.mktemp("http"), SHORT) as client:
        yield client


def test_a_refusal_reaches_a_sender_whose_short_body_is_still_on_its_way(client: httpx.Client) -> None:
    """Shown to fail by closing the connection after each refusal: what is sent into it comes back as a reset."""
    head = b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Type: "
    with connected(client) as device, device.makefile("rb") as lines:
        device.sendall(head + b"application/xml\r\n\r\n")
        assert any(b"HTTP/1.1 415 " in line for line in lines)  # stops at the first
        device.sendall(b"<a/>\n" + head + b"text/plain\r\n\r\na b=1")
        assert any(b"HTTP/1.1 200 " in line for line in lines)


@pytest.mark.parametrize(
    ("path", "said", "status"),
    [
        (b"/readings", b"Content-Length: 1000000000", b"413"),
        (b"/readings", b"Transfer-Encoding: chunked", b"413"),
        (b"/readings", b"Content-Encoding: br\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"415"),
        (b"/elsewhere", b"Transfer-Encoding: chunked", b"404"),
    ],
)
def test_the_rest_of_a_body_that_is_refused_is_not_read(client: httpx.Client, path: bytes, said: bytes, status: bytes) -> None:
    """Shown to fail without `Connection: close`: the server then reads and forgets whatever comes."""
    part = b"800\r\n" + b"x" * 2048 + b"\r\n"
    with connected(client) as device:
        device.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + said + b"\r\n\r\n" + part)
        assert device.recv(65_536).startswith(b"HTTP/1.1 " + status)
        with pytest.raises(ConnectionError):
            device.sendall(part * 10_000)  # 20 MB: more than what the system takes in for a server that does not read


@pytest.mark.parametrize("begun", [b"", b"POST /readings HTTP/1.1\r\nHost:", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"])
def test_a_connection_whose_next_request_does_not_come_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """Of silence, of headers that do not end, and of a refused body that does not."""
    monkeypatch.setattr(http_protocol, "REQUEST_S", 0.2)
    with serving(tmp_path) as client, connected(client) as device:
        device.sendall(begun)
        with suppress(ConnectionError):
            while device.recv(65_536):
                pass


def test_a_request_may_take_longer_than_the_wait_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "REQUEST_S", 1.0)  # in which two connections are made and a head is sent
    head = b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    with serving(tmp_path) as client, connected(client) as device, connected(client) as silent:
        device.sendall(head)
        with suppress(ConnectionError):
            assert silent.recv(1) == b""  # that long
        device.sendall(b"{}")
        assert device.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_more_connections_than_there_is_room_for_are_closed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MAX_OPEN", 2)
    with serving(tmp_path) as client, connected(client) as one, connected(client), connected(client) as third:
        with suppress(ConnectionError):
            assert third.recv(1) == b""
        one.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_slow_clients_together_hold_no_more_than_the_limit(tmp_path: Path) -> None:
    """Shown to fail by holding without a limit: all twelve would wait."""
    unfinished = b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1023
    with serving(tmp_path, SHORT) as client:
        devices = [connected(client) for _ in range(http_body.MAX_BODIES)]
        for device in devices:
            device.sendall(unfinished)
        until(lambda: client.post("/readings", content=b"x" * 512, headers=JSON).status_code == 503)
        for device in devices:
            device.sendall(b"x")
        assert all(device.recv(65_536).startswith(b"HTTP/1.1 200 ") for device in devices)
        assert client.post("/readings", content=b"x" * 512, headers=JSON).status_code == 200
        for device in devices:
            device.close()


def test_a_client_that_stands_still_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_body, "MAX_SECONDS", 0.05)
    with serving(tmp_path) as client, connected(client) as device:
        device.sendall(b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert device.recv(65_536).startswith(b"HTTP/1.1 408 ")


def test_a_stop_answers_what_is_under_way(tmp_path: Path) -> None:
    """Shown to fail by closing the inbox before the server has ended."""
    source = HttpSource(settings_of(tmp_path), SystemClock(), ANY_PORT, threading.Event())
    source.start()
    url = httpx.URL(source.url)
    with socket.create_connection((url.host, url.port or 0), timeout=20) as device:
        device.sendall(b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert device.recv(65_536).startswith(b"HTTP/1.1 100 ")  # the request is being read
        stopping = threading.Thread(target=source.stop)
        stopping.start()
        until(lambda: is_refused(url))
        device.sendall(b"{}")
        assert device.recv(65_536).startswith(b"HTTP/1.1 200 ")
        stopping.join()
    assert [item.message.payload for item in stored(tmp_path)] == [b"{}"]


def is_refused(url: httpx.URL) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((url.host, url.port or 0)) != 0


def test_a_stop_does_not_wait_for_ever_for_a_body_and_says_that_it_took_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail without a word for the cancelled request: the answer is then 500, with a traceback in the log."""
    monkeypatch.setattr(http, "STOP_SECONDS", 1)
    source = HttpSource(settings_of(tmp_path), SystemClock(), ANY_PORT, threading.Event())
    source.start()
    url = httpx.URL(source.url)
    with socket.create_connection((url.host, url.port or 0), timeout=20) as device:
        device.sendall(b"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert device.recv(65_536).startswith(b"HTTP/1.1 100 ")
        source.stop()
        assert device.recv(65_536).startswith(b"HTTP/1.1 503 ")
    assert stored(tmp_path) == []


def test_a_server_that_ends_by_itself_ends_the_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda *_: None)
    over = threading.Event()
    source = HttpSource(settings_of(tmp_path), SystemClock(), ANY_PORT, over)
    source.start()
    assert over.wait(60)
    source.stop()


def test_commits_that_end_by_a_fault_end_the_listener_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown to fail by a thread that nobody watches: every further request was answered 503, for ever."""
    monkeypatch.setattr(Inbox, "put", lambda *_: 1 / 0)
    over = threading.Event()
    source = HttpSource(settings_of(tmp_path), SystemClock(), ANY_PORT, over)
    source.start()
    assert httpx.post(f"{source.url}/readings", content=b"{}", trust_env=False, timeout=30).status_code == 503
    assert over.wait(60)
    with pytest.raises(ZeroDivisionError):
        source.stop()


def test_a_source_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    HttpSource(settings_of(tmp_path), SystemClock(), ANY_PORT, threading.Event()).stop()


def test_a_busy_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(SettingsError, match=f"requires a free address of this machine; got 127.0.0.1:{port}"):
            HttpSource(Settings(), SystemClock(), HttpOptions(port=port), threading.Event())


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_that_cannot_be_a_name_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match=f"requires a free address of this machine; got {host}:8080"):
        HttpSource(Settings(), SystemClock(), HttpOptions(host=host, token="secret"), threading.Event())


def test_tls_takes_both_files_and_serves_them(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TLS requires --cert and --key"):
        HttpOptions(certificate=tmp_path / "cert.pem")
    options = HttpOptions(port=0, certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    with pytest.raises(SettingsError, match="TLS requires a certificate and its key as PEM files"):
        HttpSource(settings_of(tmp_path), SystemClock(), options, threading.Event())
    files = ["-keyout", str(options.key), "-out", str(options.certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", *files], check=True, capture_output=True
    )
    with serving(tmp_path, options=options) as client:
        assert client.base_url.scheme == "https"
        assert client.post("/readings", content=READING, headers=JSON).json() == {"stored": 1}
