"""What becomes of connections to a broker: why the last one ended, when to try again, and when that would be in vain.

Used by `mqtt_connection.py`, on its thread.
"""

import logging
import threading
import time

from paho.mqtt.reasoncodes import ReasonCode

from pipeline.errors import SettingsError
from pipeline.listen.mqtt_broker import Address

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # between two attempts to connect
SHORT_S, MAX_SHORT = 20.0, 5  # 5 connections in a row, none longer than 20 s: another client takes the session over each time
HOPELESS = {132, 133, 134, 135, 138, 140}  # refusals that waiting does not mend: protocol, client id, password, rights, ban, method


class Attempts:
    """Connections to one broker, one after another.

    Attributes:
        failure: why another one would be in vain; None while it would not.
        was_let_in: whether the broker ever let us in.
    """

    def __init__(self, address: Address, client_id: str | None) -> None:
        self.failure: SettingsError | None = None
        self.was_let_in = False
        self._broker, self._client_id = f"{address.host}:{address.port}", client_id
        self._let_in_at: float | None = None
        self._is_refused = False
        self._num_short = 0
        self._pause_s = FIRST_PAUSE_S

    @property
    def is_let_in(self) -> bool:
        """Whether there is a connection now."""
        return self._let_in_at is not None

    def fail(self, sentence: str) -> None:
        """Give up, because the listener requires what the sentence says."""
        self.failure = SettingsError(f"tidecast listen mqtt requires {sentence}")

    def unreachable(self, reason: str, *, is_hopeless: bool = False) -> None:
        """Say why there is no connection; where there never was one and waiting does not bring it, give up."""
        if is_hopeless and not self.was_let_in:
            self.fail(f"a broker that lets it in; got {self._broker}: {reason}. Check --url, user, password and certificates.")
        else:
            logger.warning("no connection broker=%s retry_s=%.1f: %s", self._broker, self._pause_s, reason)

    def refused(self, reason: ReasonCode) -> None:
        """Say why the broker did not let us in; it ends the connection next."""
        self._is_refused = True
        self.unreachable(f"it refused: {reason}", is_hopeless=reason.value in HOPELESS)

    def let_in(self, *, is_kept: bool, has_listened: bool = False) -> None:
        """Begin to count how long it lasts.

        Args:
            is_kept: whether the broker has kept the session.
            has_listened: whether somebody has taken messages for our inbox before, perhaps under this client id.
        """
        logger.info("connected broker=%s session=%s", self._broker, "kept" if is_kept else "new")
        if self.was_let_in and not is_kept:
            logger.warning("the broker has forgotten the session: what was published while there was no connection is lost")
        elif has_listened and not is_kept:
            logger.warning(
                "the broker has no session of client_id=%s, and the inbox holds messages: where that client has listened before, "
                "its session has expired, and what was published since it left is lost",
                self._client_id,
            )
        self.was_let_in, self._let_in_at, self._pause_s = True, time.monotonic(), FIRST_PAUSE_S

    def ended(self, reason: ReasonCode) -> None:
        """Say how a connection ended that we did not end; after too many short ones in a row, give up."""
        let_in_at, was_refused = self._let_in_at, self._is_refused
        self._let_in_at, self._is_refused = None, False
        if let_in_at is None:
            self._num_short = 0
            if not was_refused:  # which was said
                self.unreachable("it closed the connection at once: it may want TLS, a certificate or an older MQTT")
            return
        lasted_s = time.monotonic() - let_in_at
        logger.warning("connection ended after_s=%.0f: %s", lasted_s, reason)
        self._num_short = self._num_short + 1 if lasted_s < SHORT_S else 0
        if self._num_short >= MAX_SHORT:  # Mosquitto 2.0.11 closes without the reason code 142 that MQTT has for it
            self.fail(
                f"a client id of its own; got {self._client_id!r}, with which the broker let it in and ended the connection "
                f"{self._num_short} times in a row ({reason}). End the other client of that name, or give each its own --client-id."
            )

    def pause(self, stopping: threading.Event) -> None:
        """Wait until it is time for the next one, each time longer; not at all where there is none."""
        stopping.wait(0 if self.failure else self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
