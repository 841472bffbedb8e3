"""Readings pushed by HTTP: `POST /readings/…` answers 200 when the message is on disk, and never before.

A FastAPI application in a uvicorn server with a thread of its own; what it takes goes to the inbox as it came, and is decoded by the
drain. Run by `run_listener`, made by `tidecast listen http`.
"""

import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from pipeline.clock import Clock
from pipeline.errors import SettingsError
from pipeline.listen.group_commit import GroupCommit
from pipeline.listen.http_protocol import MAX_CONNECTIONS, PatientProtocol
from pipeline.listen.http_receiver import Receiver, make_app
from pipeline.listen.inbox import Inbox
from pipeline.listen.loopback import is_loopback
from pipeline.listen.source_thread import SourceThread
from pipeline.settings import Settings

logger = logging.getLogger(__name__)

STOP_SECONDS = 10  # for the answers to requests that are under way


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """Where the server listens, and who may send to it.

    Attributes:
        host: address or name of one interface.
        port: 0 for any free one.
        token: what `Authorization: Bearer` must carry; None asks for none, which only loopback may.
        certificate: PEM file for TLS, with its chain; None serves plain HTTP.
        key: PEM file of the certificate's private key.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.token and not is_loopback(self.host):
            raise SettingsError(
                f"tidecast listen http requires a token where others can reach it; got --host {self.host} and none. "
                "Set TIDECAST_HTTP_TOKEN, or listen on 127.0.0.1."
            )
        if (self.certificate is None) != (self.key is None):
            raise SettingsError(f"TLS requires --cert and --key; got only {self.certificate or self.key}. Name the other file too.")


class HttpSource:
    """The server as a source of messages; between its making and `start`, connections wait.

    Attributes:
        url: where it listens, with the port it got.
    """

    def __init__(self, settings: Settings, clock: Clock, options: HttpOptions, over: threading.Event) -> None:
        """Take the address.

        Args:
            settings: the lake, the state folder, and the section `listen`.
            clock: says when a message was received.
            options: where to listen, and who may send.
            over: set here when the source has ended.

        Raises:
            SettingsError: when the address or the certificate cannot be used.
        """
        _require_certificate(options)
        self._settings, self._clock, self._options, self._over = settings, clock, options, over
        self._counts = Counter(stored=0, repeated=0)
        self._opened = ExitStack()  # what `stop` ends, in the opposite order
        self._socket = self._opened.enter_context(_bind(options))
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.url = f"http{'s' if options.certificate else ''}://{host}:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        """Open the inbox and take requests.

        Raises:
            StoreError: when there is no inbox and none can be made.
        """
        with self._opened.pop_all() as opened:
            commits = GroupCommit(self._settings.state_dir, self._clock, self._over)
            opened.callback(commits.close)
            inbox = opened.enter_context(closing(Inbox(self._settings.state_dir)))
            app = make_app(Receiver(self._settings, self._clock, commits, inbox, self._counts), self._options.token or None)
            server = uvicorn.Server(_config(app, self._options))
            # outside of the main thread uvicorn leaves signals alone: they belong to `run_listener`
            thread = SourceThread("http", lambda _: server.run([self._socket]), self._over)
            opened.callback(_end, server, thread)
            thread.start()
            logger.info("serving post=%s/readings health=%s/health", self.url, self.url)
            self._opened = opened.pop_all()

    def stop(self) -> None:
        """Take no more, answer what is under way, and store what was taken; raise why it ended, if it did so by itself."""
        self._opened.close()

    def counts(self) -> Mapping[str, int]:
        """Return the messages stored, and those whose key had brought them before."""
        return dict(self._counts)

    def is_connected(self) -> bool:
        """Return True: a server waits for those who connect."""
        return True


def _config(app: FastAPI, options: HttpOptions) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # nobody who sends nonsense fills the disk with warnings
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )


def _end(server: uvicorn.Server, thread: SourceThread) -> None:
    server.should_exit = True
    thread.stop()


def _require_certificate(options: HttpOptions) -> None:
    if options.certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key)
    except OSError as error:  # ssl.SSLError is one
        got = f"{options.certificate} and {options.key}: {error}"
        raise SettingsError(f"TLS requires a certificate and its key as PEM files; got {got}. Check --cert and --key.") from error


def _bind(options: HttpOptions) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # the latter where a name has an empty label or one over 63 characters
        where = f"{options.host}:{options.port}"
        raise SettingsError(
            f"tidecast listen http requires a free address of this machine; got {where}: {error}. Choose --host and --port."
        ) from error
