"""Many messages, one fsync: a thread that stores what connections hand it and tells each sender when it is on disk.

While one transaction reaches the disk (4 ms for 1 or 100 messages) the next ones gather, so it needs no timer. Called by the listeners.
When the inbox or the disk is full, HTTP senders are told, and try again themselves. MQTT messages are held and tried again until there is
room, because their broker waits for an acknowledgement.
"""

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import StoreError
from pipeline.listen.inbox import Inbox
from pipeline.listen.source_thread import SourceThread
from pipeline.payloads.message import Message

logger = logging.getLogger(__name__)

Tell = Callable[[StoreError | None], None]  # called with None: the message is on disk; else with why it is not

MAX_MESSAGES = 5_000  # in one transaction
MAX_BYTES = 64 * 1024**2  # in one transaction, whose log doubles them on the disk
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0  # between two attempts to store what is held


class GroupCommit:
    """Takes messages from any thread and stores them in the order in which they came."""

    def __init__(self, state_dir: Path, clock: Clock, over: threading.Event, *, max_bytes: int | None = None, holds: bool = False) -> None:
        """Open the inbox and start the thread.

        Args:
            state_dir: the folder of the inbox.
            clock: says when messages were received: when they are stored.
            over: set when the thread has ended, after `close` or by a fault, which `close` then raises.
            max_bytes: size of the inbox from which on nothing more is stored; None: the disk's.
            holds: hold what cannot be stored, and everything behind it, and try again until it can be, or until `close`.

        Raises:
            StoreError: when there is no inbox and none can be made.
        """
        self._inbox = Inbox(state_dir)
        self._clock = clock
        self._max_inbox_bytes = max_bytes
        self._holds = holds
        self._closing = threading.Event()
        self._door = threading.Lock()  # guards `_is_open`: nothing is queued after the end mark
        self._is_open = True
        self._waiting: queue.SimpleQueue[tuple[Message, Tell] | None] = queue.SimpleQueue()
        self._thread = SourceThread("group-commit", lambda _: self._run(), over)
        self._thread.start()

    def submit(self, message: Message, tell: Tell) -> None:
        """Hand over a message; `tell` is called once, from the thread of the commits, and must return quickly.

        After `close` it is called at once, with an error.
        """
        with self._door:
            is_open = self._is_open
            if is_open:
                self._waiting.put((message, tell))
        if not is_open:
            tell(_closed())

    def close(self) -> None:
        """Store what waits, as far as there is room, then end the thread; raise the fault that ended it before, if one did."""
        self._closing.set()
        self._shut()
        try:
            self._thread.stop()
        finally:
            self._inbox.close()

    def _run(self) -> None:
        is_last = False
        try:
            while not is_last:
                batch, is_last = self._gather()
                self._store(batch)
        finally:  # a fault of ours ended it early: answer everybody who waits
            self._shut()
            while not is_last:
                batch, is_last = self._gather()
                _tell(batch, _closed())

    def _shut(self) -> None:
        with self._door:
            if self._is_open:
                self._is_open = False
                self._waiting.put(None)

    def _gather(self) -> tuple[list[tuple[Message, Tell]], bool]:
        """Wait for a message, then take whatever has gathered behind it."""
        batch: list[tuple[Message, Tell]] = []
        size = 0
        while len(batch) < MAX_MESSAGES and size < MAX_BYTES:
            try:
                item = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
            size += len(item[0].payload)
        return batch, False

    def _store(self, batch: list[tuple[Message, Tell]]) -> None:
        failure: StoreError | None = _closed()
        try:
            failure = self._put_or_hold([message for message, _ in batch])
        finally:
            _tell(batch, failure)

    def _put_or_hold(self, messages: list[Message]) -> StoreError | None:
        """Store messages, at once or when there is room; return why they are not stored."""
        failure = self._put(messages)
        pause_s = FIRST_PAUSE_S
        while failure is not None and self._holds and not self._closing.wait(pause_s):
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            failure = self._put(messages)
        return failure

    def _put(self, messages: list[Message]) -> StoreError | None:
        try:
            self._require_room()
            self._inbox.put(messages, self._clock)
        except StoreError as error:
            logger.error("inbox refused num_messages=%d: %s", len(messages), error)
            return error
        return None

    def _require_room(self) -> None:
        if self._max_inbox_bytes is not None and (size := self._inbox.num_bytes()) >= self._max_inbox_bytes:
            raise StoreError(
                f"The inbox requires less than listen.max_inbox_bytes={self._max_inbox_bytes}; got {size} bytes. "
                "Let the lake catch up, or raise the bound; until then nothing is acknowledged."
            )


def _tell(batch: list[tuple[Message, Tell]], failure: StoreError | None) -> None:
    for _, tell in batch:
        try:
            tell(failure)
        except Exception:  # a sender that has gone must not take the answers of all others with it
            logger.exception("a sender could not be told of its message")


def _closed() -> StoreError:
    return StoreError("The inbox requires a listener that takes messages; got one that has stopped. Send it again later.")
