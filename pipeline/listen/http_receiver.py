"""What stands between a request and the inbox: who may send, what may be sent, and the answer when it is on disk.

Bodies go to the inbox as they came, unpacked; the drain decodes them. Called by `http.py`.
"""

import asyncio
import hmac
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.listen.group_commit import GroupCommit
from pipeline.listen.http_body import BodyReader, close_header, refuse
from pipeline.listen.inbox import Inbox
from pipeline.payloads.choose import FORMATS, UTF_8, charset_of
from pipeline.payloads.cloud_events import structured
from pipeline.payloads.message import Message
from pipeline.schemas import Readings
from pipeline.settings import Settings
from pipeline.store.lake import Lake
from pipeline.store.readings import fence

CONNECTOR = "http"
MEDIA_TYPES = (*FORMATS, "text/plain")  # the last is for InfluxDB line protocol
MAX_KEY_LENGTH = 255


@dataclass(frozen=True)
class Receiver:
    """Takes messages from requests to the inbox, each until it is on disk, and says how far the lake is behind.

    Attributes:
        settings: limits, and where the lake is.
        clock: says when a message was received.
        commits: stores messages.
        inbox: a connection of the server's own thread, for reading.
        counts: messages stored, and those whose key had brought them before.
        arriving: keys of messages on their way to the disk, where nobody can look them up yet.
    """

    settings: Settings
    clock: Clock
    commits: GroupCommit
    inbox: Inbox
    counts: Counter[str]
    arriving: set[str] = field(default_factory=set)

    @property
    def retry_after(self) -> str:
        """Seconds until the lake may have caught up."""
        return str(ceil(self.settings.listen.drain_interval.total_seconds()))

    @property
    def is_full(self) -> bool:
        """Whether the inbox has no room."""
        return self.inbox.is_full(self.settings.listen.max_inbox_bytes)

    async def store(self, message: Message) -> int:
        """Return once the message is on disk: 1, or 0 where its key has brought the same before.

        Raises:
            HTTPException: 409 when the key has brought something else.
            StoreError: when it cannot be stored.
        """
        key = message.idempotency_key
        if key is None:
            await self._commit(message)
            num_new = 1
        else:
            num_new = await self._commit_once(message, key)
        self.counts.update(stored=num_new, repeated=1 - num_new)
        return num_new

    async def _commit_once(self, message: Message, key: str) -> int:
        """Commit a message that has a key, unless the key has come before; return how many were new."""
        is_new = key not in self.arriving and self.inbox.find(CONNECTOR, key) is None
        self.arriving.add(key)
        try:
            await self._commit(message)
        finally:
            self.arriving.discard(key)
        found = self.inbox.find(CONNECTOR, key)
        if found is not None:
            first = found.message
            if (first.topic, first.content_type, first.payload) != (message.topic, message.content_type, message.payload):
                raise refuse(409, f"An Idempotency-Key requires the same request each time; got {key!r} with another one. Use a new key.")
        return int(is_new)

    async def _commit(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[StoreError | None] = loop.create_future()

        def tell(failure: StoreError | None) -> None:
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(lambda: None if done.done() else done.set_result(failure))

        self.commits.submit(message, tell)
        failure = await done
        if failure is not None:
            raise failure

    async def health(self) -> dict[str, object]:
        """Return how the inbox is and how far behind the lake is.

        Raises:
            StoreError: when the inbox cannot be read.
        """
        through = await asyncio.to_thread(self._through, self.inbox.source)
        waiting = self.inbox.read(through, max_messages=1, max_bytes=0)
        lag_s = (self.clock.now() - waiting[0].message.received_at).total_seconds() if waiting else 0.0
        return {
            "status": "full" if self.is_full else "ok",
            "waiting": self.inbox.last_seq() - through,
            "lag_s": max(0.0, lag_s),
            "inbox_bytes": self.inbox.num_bytes(),
        }

    def _through(self, source: str) -> int:
        """Return the number of the last message of the inbox that the lake has."""
        try:
            return Lake(self.settings.lake).last_seq(Readings, fence(source)) or 0
        except StoreError:  # no lake yet, or a damaged one: then everything waits
            return 0


def make_app(receiver: Receiver, token: str | None) -> FastAPI:
    """Return the application; no pages of documentation, which would load scripts from elsewhere."""
    app = FastAPI(title="tidecast", docs_url=None, redoc_url=None, openapi_url=None)
    bodies = BodyReader(receiver.settings.listen.max_message_bytes, receiver.retry_after)

    @app.exception_handler(StoreError)
    async def unavailable(request: Request, error: StoreError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": receiver.retry_after, **close_header(request)})

    @app.exception_handler(StarletteHTTPException)  # also of paths and methods that there are not
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"detail": error.detail}, error.status_code, {**(error.headers or {}), **close_header(request)})

    @app.post("/readings")
    @app.post("/readings/{topic:path}")
    async def post(request: Request, topic: str = "") -> dict[str, int]:
        _require_sender(request, token)
        if receiver.is_full:
            raise StoreError("POST /readings requires room in the inbox; got a full one. Try again when the lake has caught up.")
        topic, media_type, key = _topic(topic), _media_type(request), _key(request)
        try:
            async with bodies.body(request) as payload:
                if not payload:
                    raise refuse(400, "POST /readings requires readings; got an empty body. Send one reading or more.")
                said, whole = structured(_attributes(request), media_type, payload)
                return {"stored": await receiver.store(Message(CONNECTOR, topic, whole, receiver.clock.now(), said, key))}
        except asyncio.CancelledError:  # the server stops, and has waited for long enough
            raise StoreError("POST /readings requires a listener that goes on; got one that ends. Send it again later.") from None

    @app.get("/health")
    async def health() -> JSONResponse:
        report = await receiver.health()
        return JSONResponse(report, 200 if report["status"] == "ok" else 503)

    return app


def _require_sender(request: Request, token: str | None) -> None:
    if token is None:
        if "origin" in request.headers:  # a page in somebody's browser may send to that machine's loopback too
            raise refuse(403, "POST /readings requires a token where a web page sends; got none. Set TIDECAST_HTTP_TOKEN.")
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), token.encode()):
        wanted = "POST /readings requires the header Authorization: Bearer with the token; got another or none. Send it."
        raise refuse(401, wanted, WWW_Authenticate="Bearer")


def _topic(path: str) -> str:
    topic = path.strip("/")
    if not topic.isprintable():
        raise refuse(400, f"A topic requires printable characters; got {topic!r}. Correct the path.")
    return topic


def _media_type(request: Request) -> str | None:
    said = request.headers.get("content-type")
    if said is None:
        return None
    name = said.partition(";")[0].strip().lower()
    if name not in MEDIA_TYPES or charset_of(said) not in (UTF_8, "ascii"):
        raise refuse(415, f"POST /readings requires, in UTF-8, one of {', '.join(MEDIA_TYPES)}; got {said}. Set Content-Type.")
    return name


def _attributes(request: Request) -> dict[str, str]:
    """Return what the headers say of a CloudEvent in binary mode; other letters than those of ASCII come percent-encoded."""
    return {name.removeprefix("ce-"): unquote(value) for name, value in request.headers.items() if name.startswith("ce-")}


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key.strip()) <= MAX_KEY_LENGTH:
        raise refuse(400, f"An Idempotency-Key requires 1 to {MAX_KEY_LENGTH} characters; got {len(key.strip())}. Choose another.")
    return None if key is None else key.strip()
