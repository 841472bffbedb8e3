"""The thread of a source: it works until it is asked to end; where it ends by itself, the listener hears of it and learns why.

Used by the sources that `run_listener` starts and stops.
"""

import threading
from collections.abc import Callable


class SourceThread:
    """One thread, for one start and one stop."""

    def __init__(self, name: str, work: Callable[[threading.Event], None], over: threading.Event) -> None:
        """Make it ready to start.

        Args:
            name: of the thread.
            work: called once, with the event that asks it to end.
            over: set when `work` has returned or raised: the source does not go on.
        """
        self._work, self._over = work, over
        self._ending = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to end and wait for it, where it has begun; raise what it raised."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            self._work(self._ending)
        except BaseException as error:  # noqa: BLE001 (the end of a thread: `stop` raises it where somebody hears it)
            self._fault = error
        finally:
            self._over.set()
