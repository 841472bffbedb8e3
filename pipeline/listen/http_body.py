"""Reads the bodies of requests within three limits: the length of each, the memory of all together, and the time each takes.

The memory of all together is limited, because a slow client holds its part for a long time. Called by `http_receiver.py`.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

MAX_SECONDS = 60.0  # for one body: 10 MiB at 1.4 Mbit/s
FORGOTTEN_BYTES = 64 * 1024  # of the body of a refused request
MAX_MEMBERS = 32  # of a gzip, which is packed in one as a rule
MAX_BODIES = 8  # of the greatest length, in memory at once


def refuse(status: int, sentence: str, **headers: str) -> HTTPException:
    """Return the refusal of a request."""
    return HTTPException(status, sentence, {name.replace("_", "-"): value for name, value in headers.items()})


def close_header(request: Request) -> dict[str, str]:
    """Return the header that closes the connection of a refused request, so that the rest of its body is not read.

    A short rest is read and dropped instead: a client that is still sending when the connection closes sees a reset, not the refusal.
    """
    has_length = "transfer-encoding" not in request.headers  # beside which a length says nothing
    is_short = has_length and int(request.headers.get("content-length", FORGOTTEN_BYTES + 1)) <= FORGOTTEN_BYTES
    return {} if is_short else {"Connection": "close"}


@dataclass
class _Share:
    """The memory that one request holds, in bytes."""

    num_bytes: int = 0


class BodyReader:
    """Reads bodies for one event loop.

    Attributes:
        num_held: bytes of all bodies that are in memory now.
    """

    def __init__(self, max_bytes: int, retry_after: str) -> None:
        """Set the limits.

        Args:
            max_bytes: limit of one body, both as sent and unpacked.
            retry_after: seconds after which a client that found no room may try again.
        """
        self.num_held = 0
        self._max_bytes = max_bytes
        self._retry_after = retry_after
        self._unpacking = asyncio.Semaphore(1)  # one at a time: unpacking adds at most one body to the memory

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield a request's body, unpacked; its room is free again when the block ends.

        Raises:
            HTTPException: 400 when it breaks off or is no gzip, 408 when it is slow, 413 when it is too long, 415 when it is packed
                in another way, 503 when there is no room for it.
        """
        packing = request.headers.get("content-encoding", "identity").strip().lower()
        if packing not in ("identity", "gzip"):
            raise refuse(415, f"POST /readings requires a plain body or gzip; got {packing}. Pack it with gzip.", Accept_Encoding="gzip")
        share = _Share()
        try:
            body = await self._read(request, share)
            if packing == "gzip":
                body = await self._unpack(body, share)
            yield body
        finally:
            self.num_held -= share.num_bytes

    async def _read(self, request: Request, share: _Share) -> bytes:
        if int(request.headers.get("content-length", "0")) > self._max_bytes:
            raise self._too_long()
        body = bytearray()  # not a list of parts: a part of one byte takes 41
        try:
            async with asyncio.timeout(MAX_SECONDS):
                async for part in request.stream():
                    if len(body) + len(part) > self._max_bytes:
                        raise self._too_long()
                    self._hold(len(part), share)
                    body += part
        except TimeoutError:
            sentence = f"POST /readings requires its body within {MAX_SECONDS:.0f} s; got {len(body)} bytes. Send less."
            raise refuse(408, sentence, Connection="close") from None
        except ClientDisconnect:
            raise refuse(400, "POST /readings requires a whole body; got a connection that ended before. Send it again.") from None
        return bytes(body)

    def _hold(self, num_bytes: int, share: _Share) -> None:
        if self.num_held + num_bytes > MAX_BODIES * self._max_bytes:
            held = f"{self.num_held} bytes of other requests"
            raise refuse(503, f"POST /readings requires room for its body; got {held}. Try again.", Retry_After=self._retry_after)
        self.num_held += num_bytes
        share.num_bytes += num_bytes

    async def _unpack(self, packed: bytes, share: _Share) -> bytes:
        async with self._unpacking:
            try:
                body = await asyncio.to_thread(_gunzip, packed, self._max_bytes + 1)
            except (EOFError, zlib.error) as error:
                raise refuse(400, f"POST /readings requires whole gzip data; got {error}. Pack it again.") from None
            if len(body) > self._max_bytes:
                raise self._too_long()
            self._hold(len(body), share)
        return body

    def _too_long(self) -> HTTPException:
        return refuse(413, f"POST /readings requires a body of at most {self._max_bytes} bytes, unpacked; got more. Send it in parts.")


def _gunzip(packed: bytes, max_bytes: int) -> bytes:
    """Unpack at most so many bytes, of few members: a gzip of 10 KB can hold 10 MB, and one of 10 MB half a million empty members."""
    parts: list[bytes] = []
    left = max_bytes
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)  # with the header and the checksum of gzip
        parts.append(member.decompress(packed, left))
        left -= len(parts[-1])
        if left > 0 and not member.eof:
            raise EOFError("its end is missing")
        packed = member.unused_data.lstrip(b"\0")
        if left <= 0 or not packed:
            return b"".join(parts)
    raise EOFError(f"more than {MAX_MEMBERS} parts")
