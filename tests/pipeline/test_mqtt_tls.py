"""MQTT over TLS with a real Mosquitto: who the broker is, is checked always; who the listener is, where the broker asks."""

import logging
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.clock import SystemClock
from pipeline.listen.mqtt import MqttSource
from pipeline.listen.mqtt_broker import Credentials
from tests.brokers import ANONYMOUS, Mosquitto, listening, refusal, running
from tests.certificates import Authority
from tests.waiting import until

STACK = Path(__file__).parents[2] / "docker" / "mosquitto"

# paho leaves the socket of a handshake that failed to the garbage collector
left_open = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path / "authority", "the plant's")


@pytest.fixture
def encrypted(tmp_path, authority):
    cert, key = authority.issue("broker")
    lines = (f"cafile {authority.ca}", f"certfile {cert}", f"keyfile {key}", "allow_anonymous true")
    with running(Mosquitto(tmp_path / "broker", *lines)) as broker:
        yield broker


@pytest.fixture
def mutual(tmp_path, authority):
    cert, key = authority.issue("broker")
    lines = (f"cafile {authority.ca}", f"certfile {cert}", f"keyfile {key}", "allow_anonymous true", "require_certificate true")
    with running(Mosquitto(tmp_path / "broker", *lines)) as broker:
        yield broker


def test_an_encrypted_connection_takes_messages_of_any_length(encrypted, authority, tmp_path, caplog):
    settings = encrypted.settings(tmp_path / "lake", url=f"mqtts://localhost:{encrypted.port}", ca=authority.ca)
    with listening(settings, caplog) as source:
        encrypted.publish("a", b"1", b"2" * 100_000, *[b"3"] * 300, ca=authority.ca)
        until(lambda: source.counts()["acknowledged"] == 302)


@left_open
def test_a_broker_whose_certificate_somebody_else_signed_is_refused(encrypted, tmp_path):
    stranger = Authority(tmp_path / "stranger", "somebody else's")
    settings = encrypted.settings(tmp_path / "lake", url=f"mqtts://localhost:{encrypted.port}", ca=stranger.ca)
    assert "its certificate is not trusted: self-signed certificate in certificate chain" in refusal(settings)


@left_open
def test_a_broker_whose_certificate_has_expired_is_refused(authority, tmp_path):
    cert, key = authority.issue("broker", valid_for=timedelta(minutes=-1))
    lines = (f"cafile {authority.ca}", f"certfile {cert}", f"keyfile {key}", "allow_anonymous true")
    with running(Mosquitto(tmp_path / "broker", *lines)) as broker:
        settings = broker.settings(tmp_path / "lake", url=f"mqtts://localhost:{broker.port}", ca=authority.ca)
        assert "its certificate is not trusted: certificate has expired" in refusal(settings)


def test_a_listener_that_does_not_encrypt_where_the_broker_wants_it_says_what_may_be_wrong(encrypted, tmp_path, caplog):
    with listening(encrypted.settings(tmp_path / "lake"), caplog, sign="closed the connection at once: it may want TLS"):
        pass


@left_open
def test_a_listener_that_encrypts_where_the_broker_does_not_says_what_may_be_wrong(tmp_path, caplog):
    with running(Mosquitto(tmp_path / "broker")) as plain:
        settings = plain.settings(tmp_path / "lake", url=f"mqtts://localhost:{plain.port}")
        with listening(settings, caplog, sign="the port may be one without TLS, which mqtt:// asks for") as source:
            assert not source.is_connected()


@left_open
def test_a_broker_with_another_name_than_its_certificate_is_refused(encrypted, authority, tmp_path):
    settings = encrypted.settings(tmp_path / "lake", url=f"mqtts://127.0.0.1:{encrypted.port}", ca=authority.ca)
    assert "its certificate is not trusted: IP address mismatch" in refusal(settings)


def test_a_listener_shows_its_certificate_where_the_broker_asks(mutual, authority, tmp_path, caplog):
    cert, key = authority.issue("listener")
    settings = mutual.settings(tmp_path / "lake", url=f"mqtts://localhost:{mutual.port}", ca=authority.ca, cert=cert, key=key)
    with listening(settings, caplog) as source:
        assert source.is_connected()
        mutual.publish("a", b"1", ca=authority.ca, certificate=(cert, key))
        until(lambda: source.counts()["acknowledged"] == 1)


def test_a_listener_without_a_certificate_is_not_let_in_and_says_so(mutual, authority, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = mutual.settings(tmp_path / "lake", url=f"mqtts://localhost:{mutual.port}", ca=authority.ca)
    source = MqttSource(settings, SystemClock(), ANONYMOUS, threading.Event())
    source.start()
    until(lambda: "it may want TLS, a certificate" in caplog.text)
    source.stop()
    assert "subscribed" not in caplog.text


def test_the_certificates_of_the_stack_are_made_once_and_let_a_password_through(tmp_path, caplog):
    """Shown to fail by certificates for the service's name alone."""
    script = [sys.executable, str(STACK / "certificates.py"), str(tmp_path), "mosquitto"]
    subprocess.run(script, check=True)
    made = {file: file.read_bytes() for file in tmp_path.iterdir()}
    subprocess.run(script, check=True)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == made
    assert {file.name: file.stat().st_mode & 0o777 for file in made} == {"ca.pem": 0o644, "broker.pem": 0o644, "broker.key": 0o600}
    lines = (f"certfile {tmp_path}/broker.pem", f"keyfile {tmp_path}/broker.key", "allow_anonymous true")
    with running(Mosquitto(tmp_path / "broker", *lines)) as broker:
        settings = broker.settings(tmp_path / "lake", url=f"mqtts://localhost:{broker.port}", ca=tmp_path / "ca.pem")
        with listening(settings, caplog, Credentials("tidecast", "secret")) as source:
            broker.publish("a", b"1", ca=tmp_path / "ca.pem")
            until(lambda: source.counts()["acknowledged"] == 1)
