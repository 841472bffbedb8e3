"""A verifiable producer: publishes a fleet's readings by MQTT and writes down what the broker has acknowledged.

    python -m tests.faults.producer --port 1883 --fleet '{…}' --ledger FILE

Reading k of every device is sent at its stamp. Each line of the ledger is "device seq": a reading that the broker has taken over. A
producer that is started on the ledger of one that was killed sends what is not in it. With `--faults P` a share P of the readings is
sent twice, one of P comes up to four readings late, and as many messages of garbage go between them. SIGTERM ends it when what it has
sent is acknowledged.
"""

import argparse
import itertools
import queue
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.faults.fleet import Fleet, Reading

MOST_ON_THE_WAY = 2_000
PATIENCE_S = 300.0  # for the next acknowledgement: a broker may be away for a minute


def stream(fleet: Fleet, faults: float) -> Iterator[list[Reading | bytes]]:
    """Yield what the fleet sends at each of its ticks, without end, faults included; every reading comes at least once."""
    dice, held = random.Random(fleet.seed), deque[tuple[int, Reading]]()
    for seq in itertools.count():
        sent: list[Reading | bytes] = []
        for device in range(fleet.num_devices):
            reading, roll = fleet.reading(device, seq), dice.random()
            if roll < faults:
                held.append((seq + dice.randint(1, 4), reading))
                continue
            sent.append(reading)
            if roll < 2 * faults:
                sent.append(reading)
            elif roll < 3 * faults:
                sent.append(dice.randbytes(dice.randint(1, 200)))
        sent += [reading for due, reading in held if due == seq]
        held = deque((due, reading) for due, reading in held if due > seq)
        dice.shuffle(sent)
        yield sent


class Producer:
    """Publishes with QoS 1 and keeps the ledger; paho's thread only says which messages are through, this one does the rest."""

    def __init__(self, port: int, ledger: Path, client_id: str) -> None:
        self._on_the_way: dict[int, Reading | bytes] = {}
        self._through: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ledger = ledger.open("a", buffering=1)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self._client.max_inflight_messages_set(500)
        self._client.on_publish = self._published
        self._client.reconnect_delay_set(1, 4)  # seconds; by default up to two minutes after an outage of one
        self._client.connect_async("127.0.0.1", port, clean_start=mqtt.MQTT_CLEAN_START_FIRST_ONLY)
        self._client.loop_start()

    def send(self, what: Reading | bytes, *, topic: str = "fleet/garbage") -> None:
        """Publish a reading, or bytes on some topic; waits while too much is on the way."""
        while len(self._on_the_way) >= MOST_ON_THE_WAY:
            self._settle()
        address, payload = (topic, what) if isinstance(what, bytes) else (what.topic, what.payload())
        self._on_the_way[self._client.publish(address, payload, qos=1).mid] = what

    def flush(self) -> None:
        """Wait until everything is acknowledged and in the ledger.

        Raises:
            queue.Empty: when nothing was, for `PATIENCE_S`.
        """
        while self._on_the_way:
            self._settle()

    def finish(self) -> None:
        """Flush and disconnect."""
        self.flush()
        self._client.disconnect()
        self._client.loop_stop()
        self._ledger.close()

    def _settle(self) -> None:
        """Take the next message off the list of those on the way, and put it into the ledger."""
        reading = self._on_the_way.pop(self._through.get(timeout=PATIENCE_S))
        if isinstance(reading, Reading):
            self._ledger.write(f"{line_of(reading)}\n")

    def _published(self, client: mqtt.Client, userdata: object, mid: int, reason: ReasonCode, properties: object) -> None:
        assert not reason.is_failure, f"the broker refused a message: {reason}"
        self._through.put(mid)


def line_of(reading: Reading) -> str:
    """Return a reading as the ledger names it."""
    return f"{reading.device} {reading.seq}"


def main() -> None:
    """Publish in real time what the ledger does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fleet", type=Fleet.of, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--faults", type=float, default=0.0)
    arguments = parser.parse_args()
    fleet: Fleet = arguments.fleet
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    acknowledged = set(arguments.ledger.read_text().splitlines()) if arguments.ledger.exists() else set()
    producer = Producer(arguments.port, arguments.ledger, f"producer-{fleet.seed}")
    sys.stderr.write(f"publishing behind num_readings={len(acknowledged)}\n")
    for tick, sent in enumerate(stream(fleet, arguments.faults)):
        if ended.wait(max(0.0, fleet.reading(0, tick).ts.timestamp() - time.time())):
            break
        for what in sent:
            if isinstance(what, bytes) or line_of(what) not in acknowledged:
                producer.send(what)
        producer.flush()
    producer.finish()


if __name__ == "__main__":
    main()
