"""Connections that do not wait for ever: one whose next request does not come gives its place to another. Used by `http.py`.

uvicorn waits without end for the first byte, for the rest of headers, and for the rest of a refused body: devices that died behind a
router, and clients that are slow on purpose, would hold all of its connections.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

REQUEST_S = 20.0  # until the headers of the next request are whole
MAX_CONNECTIONS = 500  # half of the usual limit of open files of a process; further ones are answered 503
MAX_OPEN = 800  # including those that are answered 503; further ones are closed at once


class PatientProtocol(H11Protocol):
    """HTTP/1.1 on one connection, with an end to its patience."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if len(self.connections) > MAX_OPEN:
            transport.abort()
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._forget_deadline()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        self._forget_deadline()
        self._deadline = self.loop.call_later(REQUEST_S, self._end_unless_asked, self.cycle)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _end_unless_asked(self, last: RequestResponseCycle | None) -> None:
        """Close the connection if no request has come since the wait began, and the last one is answered."""
        if self.cycle is last and (last is None or last.response_complete):
            self.transport.abort()
