"""Where the MQTT broker is and how it is reached: encrypted unless it is this machine, with secrets from the environment alone.

Called by `mqtt_connection.py`, which keeps the connection.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from pipeline.errors import SettingsError
from pipeline.listen.loopback import is_loopback
from pipeline.settings import MQTT_PASSWORD, MQTT_USERNAME, MqttSettings

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Credentials:
    """Who logs in; the password is in no text that shows this object."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read them from environment variables; there is none where there is no user's name.

        Raises:
            SettingsError: for a password without a user's name.
        """
        username, password = environment.get(MQTT_USERNAME) or None, environment.get(MQTT_PASSWORD) or None
        if password is not None and username is None:
            raise SettingsError(f"{MQTT_PASSWORD} requires {MQTT_USERNAME} beside it; got none. Set both, or neither.")
        return cls(username, password)


@dataclass(frozen=True)
class Address:
    """A broker's place.

    Attributes:
        host: a name or an IP address.
        port: 1 to 65535.
        is_encrypted: whether the connection is TLS.
    """

    host: str
    port: int
    is_encrypted: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `mqtt://host:port`, `mqtts://host:port` or `host:port`; without a scheme all but this machine is encrypted.

        >>> Address.parse("broker.example")
        Address(host='broker.example', port=8883, is_encrypted=True)
        >>> Address.parse("localhost")
        Address(host='localhost', port=1883, is_encrypted=False)

        Raises:
            SettingsError: for anything else; what stands before an @ may be a password and is not repeated.
        """
        named = url if "://" in url else f"//{url}"
        if "@" in named:
            raise SettingsError(
                f"The URL of an MQTT broker requires a host without user or password; got one with an @. Put them into "
                f"{MQTT_USERNAME} and {MQTT_PASSWORD}."
            )
        try:
            parts = urlsplit(named)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")
        except ValueError:  # a port that is no number, or a name that no name server knows: an empty label, or one over 63 characters
            host, port = None, None
        if not host or parts.scheme not in ("", *PORTS) or parts.path.strip("/") or parts.query or port == 0:
            raise SettingsError(f"The URL of an MQTT broker requires mqtt://host:port or mqtts://host:port; got {url!r}. Correct it.")
        scheme = parts.scheme or ("mqtt" if is_loopback(host) else "mqtts")
        return cls(host, port or PORTS[scheme], scheme == "mqtts")


def tls_context(settings: MqttSettings, address: Address) -> ssl.SSLContext | None:
    """Return how the broker is asked who it is, and told who we are; None where the connection is not encrypted.

    Raises:
        SettingsError: when a certificate cannot be read, or would not be used.
    """
    if not address.is_encrypted:
        if settings.ca or settings.cert or settings.key:
            raise SettingsError(
                f"Certificates require an encrypted connection; got mqtt://{address.host}:{address.port}. Write mqtts:// or leave them out."
            )
        return None
    if settings.key and not settings.cert:
        raise SettingsError(f"A client's key requires its certificate; got the key {settings.key} alone. Give both.")
    try:
        context = ssl.create_default_context(cafile=settings.ca)  # checks the certificate and the host's name
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key, password="")  # an empty one, so that nobody is asked on the terminal
    except OSError as error:  # an ssl.SSLError is one
        files = ", ".join(str(path) for path in (settings.ca, settings.cert, settings.key) if path)
        raise SettingsError(f"TLS requires readable PEM certificates and a key without a password; got {files}: {error}.") from error
    return context


def check_credentials(credentials: Credentials, address: Address) -> None:
    """Refuse to send a password where others can read it.

    Raises:
        SettingsError: for a password, another machine and no encryption.
    """
    if credentials.password is not None and not address.is_encrypted and not is_loopback(address.host):
        raise SettingsError(
            f"A password requires an encrypted connection or a broker on this machine; got mqtt://{address.host}:{address.port}. "
            "Write mqtts://, or use a broker that asks for none."
        )


def new_client(settings: MqttSettings, address: Address, credentials: Credentials) -> Client:
    """Return a client of MQTT 5 that is to reach a broker, not connected yet.

    Raises:
        SettingsError: without a client id, or for certificates or credentials that cannot be used.
    """
    if settings.client_id is None:
        raise SettingsError(
            "tidecast listen mqtt requires a client id, under which the broker keeps messages while the listener is away; got none. "
            "Give --client-id: always the same, and used by nobody else."
        )
    check_credentials(credentials, address)
    client = Client(CallbackAPIVersion.VERSION2, settings.client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
    client.username, client.password = credentials.username, credentials.password
    if (context := tls_context(settings, address)) is not None:
        client.tls_set_context(context)
    return client
