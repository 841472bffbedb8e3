"""How a broker is reached: encrypted unless it is this machine, and no secret where it could be read."""

import pytest

from pipeline.errors import SettingsError
from pipeline.listen.mqtt_broker import Address, Credentials, check_credentials, tls_context
from pipeline.settings import MqttSettings

SECRET = "hunter-2"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("broker.example", Address("broker.example", 8883, is_encrypted=True)),
        ("broker.example:1883", Address("broker.example", 1883, is_encrypted=True)),
        ("mqtt://broker.example", Address("broker.example", 1883, is_encrypted=False)),
        ("mqtts://10.0.0.1:9999/", Address("10.0.0.1", 9999, is_encrypted=True)),
        ("127.0.0.1", Address("127.0.0.1", 1883, is_encrypted=False)),
        ("[::1]:1884", Address("::1", 1884, is_encrypted=False)),
        ("mqtts://localhost", Address("localhost", 8883, is_encrypted=True)),
    ],
)
def test_all_but_this_machine_is_encrypted_unless_the_url_says_otherwise(url, address):
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://broker",
        "mqtt://",
        "broker:port",
        "broker:0",
        "broker:70000",
        "mqtt://broker/topic",
        "broker?a=b",
        "a..b",
        f"mqtt://{'a' * 64}",
    ],
)
def test_what_is_no_address_of_a_broker_is_refused(url):
    with pytest.raises(SettingsError, match="requires mqtt://host:port"):
        Address.parse(url)


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(SettingsError, match="TIDECAST_MQTT_PASSWORD") as refused:
        Address.parse(f"mqtts://user:{SECRET}@broker")
    assert SECRET not in str(refused.value)


def test_a_password_is_in_no_text_that_shows_its_owner():
    assert SECRET not in repr(Credentials("user", SECRET))


def test_credentials_come_from_the_environment():
    read = Credentials.of_environment({"TIDECAST_MQTT_USERNAME": "user", "TIDECAST_MQTT_PASSWORD": SECRET})
    assert (read.username, read.password) == ("user", SECRET)
    with pytest.raises(SettingsError, match="requires TIDECAST_MQTT_USERNAME"):
        Credentials.of_environment({"TIDECAST_MQTT_PASSWORD": SECRET})


@pytest.mark.parametrize(("url", "is_sent"), [("mqtt://broker", False), ("mqtts://broker", True), ("mqtt://localhost", True)])
def test_a_password_never_leaves_this_machine_unencrypted(url, is_sent):
    address = Address.parse(url)
    if is_sent:
        check_credentials(Credentials("user", SECRET), address)
        return
    with pytest.raises(SettingsError, match="requires an encrypted connection"):
        check_credentials(Credentials("user", SECRET), address)


@pytest.mark.parametrize(
    ("url", "files", "reason"),
    [
        ("mqtt://localhost", {"ca": "ca.pem"}, "Certificates require an encrypted connection"),
        ("mqtts://localhost", {"key": "client.key"}, "requires its certificate"),
        ("mqtts://localhost", {"ca": "missing.pem"}, "requires readable PEM certificates"),
    ],
)
def test_certificates_that_cannot_be_used_are_refused(url, files, reason):
    with pytest.raises(SettingsError, match=reason):
        tls_context(MqttSettings(url=url, **files), Address.parse(url))
