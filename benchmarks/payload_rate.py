"""How fast one core decodes messages of one reading, by format, against NDJSON: readings per second of CPU time.

    python -m benchmarks.payload_rate [--messages 20000] [--formats line_protocol,senml,...]

Every message has a device, a stamp and a value of its own. Each format is decoded three times, and its best time counts. Prints a
Markdown table.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

os.environ["POLARS_MAX_THREADS"] = "1"  # before Polars is loaded

from pipeline.payloads.decode import decode
from pipeline.payloads.message import Message
from pipeline.payloads.sparkplug_schema import payload_class

NUM_DEVICES = 2_000
START = datetime(2026, 1, 1, tzinfo=UTC)
PEER = "ndjson"
ROUNDS = 3


def _ndjson(device: str, at: datetime, value: float) -> bytes:
    return f'{{"ts":"{at.isoformat()}","device_id":"{device}","metric":"power","value":{value:.3f}}}\n'.encode()


def _line_protocol(device: str, at: datetime, value: float) -> bytes:
    return f"power,device={device} value={value:.3f} {int(at.timestamp())}000000000".encode()


def _senml(device: str, at: datetime, value: float) -> bytes:
    return f'[{{"bn":"{device}/","bt":{int(at.timestamp())},"n":"power","u":"W","v":{value:.3f}}}]'.encode()


def _cloud_events(device: str, at: datetime, value: float) -> bytes:
    envelope = {"specversion": "1.0", "id": "17", "source": f"/site/{device}", "type": "reading", "time": at.isoformat()}
    return json.dumps({**envelope, "data": {"power": round(value, 3)}}).encode()


def _sparkplug(_device: str, at: datetime, value: float) -> bytes:
    payload = payload_class()(timestamp=int(at.timestamp() * 1000))
    payload.metrics.add(name=b"power", datatype=10, double_value=round(value, 3))
    return bytes(payload.SerializeToString())


FORMATS: dict[str, tuple[Callable[[str, datetime, float], bytes], str, str | None]] = {  # writer, topic, content type
    PEER: (_ndjson, "site/{}", "application/x-ndjson"),
    "line_protocol": (_line_protocol, "site/{}", None),
    "senml": (_senml, "site/{}", None),
    "cloud_events": (_cloud_events, "site/{}", None),
    "sparkplug": (_sparkplug, "spBv1.0/plant/DDATA/gateway/{}", None),
}


def messages(name: str, count: int) -> list[Message]:
    """Return messages of one reading each, a reading a second of each device, in turn."""
    write, topic, content_type = FORMATS[name]
    made = []
    for number in range(count):
        device, at = f"sensor-{number % NUM_DEVICES:04}", START + timedelta(seconds=number // NUM_DEVICES)
        made.append(Message("mqtt", topic.format(device), write(device, at, number % 977 / 7), at, content_type))
    return made


def rate(name: str, count: int) -> float:
    """Return readings per second of CPU time."""
    given, best_s = messages(name, count), float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        batches = decode(given, ())
        best_s = min(best_s, time.process_time() - started)
        if sum(len(batch.rows) for batch in batches) != count:
            raise SystemExit(f"payload_rate requires a reading of every message of {name}; got others.")
    return count / best_s


def main() -> None:
    """Measure each format and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--formats", default=",".join(FORMATS))
    options = parser.parse_args()
    peer = rate(PEER, options.messages)
    print("| format | readings/s | against NDJSON |\n|---|---:|---:|")
    for name in options.formats.split(","):
        found = peer if name == PEER else rate(name, options.messages)
        print(f"| {name} | {found:,.0f} | {found / peer:.2f} |")


if __name__ == "__main__":
    main()
