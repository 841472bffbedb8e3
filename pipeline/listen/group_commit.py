"""Many messages, one fsync: a thread that stores what connections hand it and tells each sender when it is on disk.

While one transaction reaches the disk (4 ms for 1 or 100 messages) the next ones gather, so it needs no timer. Called by the listeners.
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


class GroupCommit:
    """Takes messages from any thread and stores them in the order in which they came."""

    def __init__(self, state_dir: Path) -> None:
        """Start the thread.

        Raises:
            StoreError: when there is no inbox and none can be made.
        """
        self._inbox = Inbox(state_dir)
        self._waiting: queue.SimpleQueue[tuple[Message, Told] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, message: Message, tell: Told) -> None:
        """Hand over a message; `tell` is called once, from the thread of the commits, and must return quickly."""
        self._waiting.put((message, tell))

    def close(self) -> None:
        """Store what waits, then end the thread."""
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
        failure = None
        try:
            self._inbox.put([message for message, _ in batch])
        except StoreError as error:
            failure = error
            logger.error("inbox refused num_messages=%d: %s", len(batch), error)
        for _, tell in batch:
            tell(failure)
