"""How a service learns of SIGTERM and Ctrl-C: an event that another thread sets. Called by the follower's loop and the listeners.

A handler runs in the middle of whatever the main thread is doing. One that set the event itself could wait for ever, for the lock that
this very thread holds while it waits for the event. So the handler does nothing, the interpreter writes the signal's number into a
socket, and a thread reads it there.
"""

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set an event instead of ending the process, while the block runs.

    Python lets only the main thread say what becomes of signals; in another one, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers, written = socket.socketpair()
    written.setblocking(False)  # as `set_wakeup_fd` asks
    reader = threading.Thread(target=_set_at_a_signal, args=(numbers, stop), name="signals", daemon=True)
    reader.start()
    woken_before = signal.set_wakeup_fd(written.fileno())
    handlers_before = {number: signal.signal(number, _nothing) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        written.close()
        reader.join()
        numbers.close()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Be a handler: without one, the interpreter writes nothing."""


def _set_at_a_signal(numbers: socket.socket, stop: threading.Event) -> None:
    while number := numbers.recv(1):  # nothing, once the other end is closed
        if number[0] in ENDING:
            said = "still storing; kill -9 ends it at once and loses nothing that was acknowledged," if stop.is_set() else "ending"
            logger.info("%s signal=%s", said, signal.Signals(number[0]).name)
            stop.set()
