"""A fleet whose every reading is a function of its device and number, so that anybody can say what was published and what it was.

The producer publishes it, the oracle looks for it: neither has to trust the other's memory.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

METRIC = "temperature"


@dataclass(frozen=True)
class Reading:
    """One reading of a device: its number, its stamp and its value."""

    device: str
    seq: int
    ts: datetime
    value: float

    @property
    def series_id(self) -> str:
        """The series it belongs to."""
        return f"{self.device}/{METRIC}"

    @property
    def topic(self) -> str:
        """Where it is published."""
        return f"fleet/{self.device}/{METRIC}"

    def payload(self) -> bytes:
        """Return it as its device would send it."""
        body = {"device_id": self.device, "metric": METRIC, "ts": self.ts.isoformat(), "value": self.value, "seq": self.seq}
        return json.dumps(body).encode()


@dataclass(frozen=True)
class Fleet:
    """Devices that measure at a common spacing.

    Attributes:
        num_devices: of the fleet.
        start: stamp of reading 0, ISO 8601, UTC.
        interval_s: spacing of the readings of one device.
        seed: another one gives other values.
    """

    num_devices: int
    start: str
    interval_s: float
    seed: int = 0

    @classmethod
    def of(cls, text: str) -> "Fleet":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return it as text, for a command line."""
        return json.dumps(asdict(self))

    def reading(self, device: int, seq: int) -> Reading:
        """Return a reading; the same whoever asks, and whenever."""
        digest = hashlib.blake2b(f"{self.seed} {device} {seq}".encode(), digest_size=8).digest()
        noise = int.from_bytes(digest, "big") / 2**64 - 0.5
        value = 20 + 5 * math.sin(2 * math.pi * (seq + device) / 24) + noise
        ts = datetime.fromisoformat(self.start).astimezone(UTC) + timedelta(seconds=seq * self.interval_s)
        return Reading(f"d{device:05}", seq, ts, round(value, 4))
