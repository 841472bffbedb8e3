"""Many messages, one fsync: a thread that stores what connections hand it and tells each sender when it is on disk.

While one transaction reaches the disk (4 ms for 1 or 100 messages) the next ones gather, so it needs no timer. Called by the listeners.
A full inbox or disk is told to senders who try again themselves (HTTP); for those who wait for an acknowledgement (MQTT), what came is
held and tried again until there is room.
"""

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message

logger = logging.getLogger(__name__)

Told = Callable[[StoreError | None], None]  # None: it is on disk; else why it is not

MAX_MESSAGES = 5_000  # in one transaction
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0  # between two attempts to store what is held


class GroupCommit:
    """Takes messages from any thread and stores them in the order in which they came."""

    def __init__(self, state_dir: Path, *, max_bytes: int | None = None, holds: bool = False) -> None:
        """Start the thread.

        Args:
            state_dir: the folder of the inbox.
            max_bytes: size of the inbox from which on nothing more is stored; None: the disk's.
            holds: hold what cannot be stored, and everything behind it, and try again until it can be, or until `close`.

        Raises:
            StoreError: when there is no inbox and none can be made.
        """
        self._inbox = Inbox(state_dir)
        self._max_bytes = max_bytes
        self._holds = holds
        self._closing = threading.Event()
        self._waiting: queue.SimpleQueue[tuple[Message, Told] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, message: Message, tell: Told) -> None:
        """Hand over a message; `tell` is called once, from the thread of the commits, and must return quickly."""
        self._waiting.put((message, tell))

    def close(self) -> None:
        """Store what waits, as far as there is room, then end the thread."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join()
        self._inbox.close()

    def _run(self) -> None:
        while True:
            batch, is_last = self._gather()
            if batch:
                self._store(batch)
            if is_last:
                return

    def _gather(self) -> tuple[list[tuple[Message, Told]], bool]:
        """Wait for a message, then take whatever has gathered behind it."""
        batch: list[tuple[Message, Told]] = []
        while len(batch) < MAX_MESSAGES:
            try:
                item = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _store(self, batch: list[tuple[Message, Told]]) -> None:
        messages = [message for message, _ in batch]
        failure = self._put(messages)
        pause_s = FIRST_PAUSE_S
        while failure is not None and self._holds and not self._closing.wait(pause_s):
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            failure = self._put(messages)
        for _, tell in batch:
            tell(failure)

    def _put(self, messages: list[Message]) -> StoreError | None:
        """Store messages; return why they are not."""
        try:
            size = self._inbox.num_bytes()
            if self._max_bytes is not None and size >= self._max_bytes:
                raise StoreError(
                    f"The inbox requires less than listen.max_inbox_bytes={self._max_bytes}; got {size} bytes. "
                    "Let the lake catch up, or raise the bound; until then nothing is acknowledged."
                )
            self._inbox.put(messages)
        except StoreError as error:
            logger.error("inbox refused num_messages=%d: %s", len(messages), error)
            return error
        return None
