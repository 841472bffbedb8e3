"""How fast MQTT messages are acknowledged after their fsync: `python -m benchmarks.mqtt_rate`.

Starts Mosquitto, the real `tidecast listen mqtt` and a publisher, each a process of its own on loopback. The publisher writes packets that
were encoded before, so that broker and listener are what is measured. Once for messages of one reading, once for batches of a hundred;
prints one JSON object, with the CPU time of each process: on a machine with other work, that is the figure to compare.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.listen.inbox import Inbox

TARGETS = {1: 10_000, 100: 200_000}  # readings a second, by readings in a message
WINDOW, CHUNK = 2_000, 500  # messages that the publisher may be ahead of the broker; messages it writes at once
PUBACK_BYTES = 4  # in MQTT 3.1.1, which the publisher speaks
PATIENCE_S = 600
LISTENER = "import sys; from flows.cli import main; sys.argv[0] = 'tidecast'; main()"
BROKER = "/usr/sbin/mosquitto"


def main() -> None:
    """Measure each size of message, print."""
    asked = _arguments()
    if asked.publish:
        publish(asked.publish, asked.messages, asked.readings)
        return
    print(json.dumps([measure(asked.messages // (1 if size == 1 else 10), size) for size in TARGETS], indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="of one reading; a tenth of it of a hundred readings")
    parser.add_argument("--publish", type=int, metavar="PORT", help=argparse.SUPPRESS)  # the process of the publisher
    parser.add_argument("--readings", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(messages: int, readings: int) -> dict[str, object]:
    """Send messages of so many readings each; return rates from the first publication to the last commit."""
    with tempfile.TemporaryDirectory() as folder:
        place, port = Path(folder), _free_port()
        with _running([shutil.which("mosquitto") or BROKER, "-c", str(_broker_settings(place, port))], place, "broker") as broker:
            _wait_until(lambda: _listens(port))
            command = [sys.executable, "-c", LISTENER, "listen", "mqtt", "--url", f"localhost:{port}", "--client-id", "benchmark"]
            with _running([*command, "--lake", str(place / "lake"), "--json"], place, "listener") as listener:
                _wait_until(lambda: "subscribed" in (place / "listener.err").read_text())
                spent_s = [_cpu_s(process.pid) for process in (broker, listener)]
                began = time.perf_counter()
                _publish_beside(port, messages, readings)
                inbox = Inbox(place / "lake" / "state")
                _wait_until(lambda: inbox.last_seq() >= messages)
                seconds = time.perf_counter() - began
                cpu_s = [_cpu_s(process.pid) - spent for process, spent in zip((broker, listener), spent_s, strict=True)]
                inbox.close()
                listener.send_signal(signal.SIGTERM)
                listener.wait(PATIENCE_S)
        counts = json.loads((place / "listener.out").read_text())["counts"]
    return {
        "readings_per_message": readings,
        "messages": messages,
        "acknowledged": counts["acknowledged"],
        "seconds": round(seconds, 2),
        "messages_per_s": round(messages / seconds),
        "readings_per_s": round(messages * readings / seconds),
        "target_readings_per_s": TARGETS[readings],
        "cpu_us_per_message": {name: round(spent / messages * 1e6, 1) for name, spent in zip(("broker", "listener"), cpu_s, strict=True)},
    }


def _publish_beside(port: int, messages: int, readings: int) -> None:
    asked = ["--publish", str(port), "--messages", str(messages), "--readings", str(readings)]
    subprocess.run([sys.executable, "-m", "benchmarks.mqtt_rate", *asked], check=True)


def publish(port: int, messages: int, readings: int) -> None:
    """Publish with QoS 1 over a plain socket; at most `WINDOW` messages wait for the broker's PUBACK."""
    packets = [_packet(number, readings) for number in range(messages)]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(_connect_packet(b"benchmark-publisher"))
        connection.recv(4)
        sent = num_bytes = 0
        while num_bytes < messages * PUBACK_BYTES:
            if sent < messages and sent - num_bytes // PUBACK_BYTES < WINDOW:
                connection.sendall(b"".join(packets[sent : sent + CHUNK]))
                sent = min(sent + CHUNK, messages)
            else:
                num_bytes += len(connection.recv(65_536))


def _packet(number: int, readings: int) -> bytes:
    topic = f"site/a/device-{number % 2_000:04d}/temperature".encode()
    reading = '{"ts":"2026-01-01T00:00:00.%06dZ","value":%.2f,"seq":%d}'
    items = [reading % (number * readings + item & 0xFFFFF, 20 + number % 7, number * readings + item) for item in range(readings)]
    payload = (items[0] if readings == 1 else f"[{','.join(items)}]").encode()
    body = struct.pack("!H", len(topic)) + topic + struct.pack("!H", number % 60_000 + 1) + payload
    return b"\x32" + _length(len(body)) + body


def _connect_packet(client_id: bytes) -> bytes:
    body = struct.pack("!H", 4) + b"MQTT\x04\x02" + struct.pack("!HH", 0, len(client_id)) + client_id
    return b"\x10" + _length(len(body)) + body


def _length(number: int) -> bytes:
    encoded = bytearray()
    while True:
        number, part = divmod(number, 128)
        encoded.append(part | (0x80 if number else 0))
        if not number:
            return bytes(encoded)


def _broker_settings(place: Path, port: int) -> Path:
    path = place / "mosquitto.conf"
    path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_type none\n")
    return path


@contextmanager
def _running(command: list[str], place: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, its output in NAME.out and NAME.err, until the block ends."""
    with (place / f"{name}.out").open("wb") as out, (place / f"{name}.err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened for {PATIENCE_S} s")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far (Linux), in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
