"""Payloads that no device should send: noise, mutilated good ones of every format, and what is known to break parsers."""

import base64
import json
import random
from collections.abc import Iterator

from pipeline.payloads.sparkplug_schema import payload_class

BIG_EVERY = 20_000  # payloads, of which one is of ten megabytes
EVENT = {"specversion": "1.0", "id": "7", "source": "/site/1", "type": "reading", "time": "2026-01-01T00:00:00Z"}


def sparkplug(**metrics: float) -> bytes:
    """Return a payload of doubles by name."""
    payload = payload_class()(timestamp=1_767_225_600_000, seq=1)
    for name, value in metrics.items():
        payload.metrics.add(name=name.encode(), datatype=10, double_value=value)
    return bytes(payload.SerializeToString())


VALID: dict[str, bytes] = {
    "json": b'{"ts": "2026-01-01T00:00:00Z", "device_id": "d1", "metric": "power", "value": 1.5, "unit": "kW"}',
    "json_array": b'[{"ts": 1767225600, "device": "d1", "temperature": 21.5, "rh": 40}, {"ts": 1767225660, "device": "d1", "rh": 41}]',
    "json_nested": b'{"time": 1767225600000, "device": "d1", "metrics": {"power": 1.5, "state": "on", "ok": true}}',
    "ndjson": b'{"ts": 1767225600, "series_id": "d1/power", "value": 1}\n{"ts": 1767225660, "series_id": "d1/power", "value": 2}\n',
    "line_protocol": b'weather,device=d1,site=a\\ b temperature=21.5,ok=t,note="x,\\"y\\"" 1767225600000000000\npower,device=d1 value=3i\n',
    "senml": b'[{"bn":"urn:dev:ow:10e2073a01080063:","bt":1.767e9,"bu":"A","bver":10,"n":"current","v":1.2},{"n":"current","t":5,"v":1.3}]',
    "cloud_event": json.dumps({**EVENT, "data": {"temperature": 21.5}}).encode(),
    "cloud_events": json.dumps(
        [{**EVENT, "data_base64": base64.b64encode(b'{"power": 2}').decode()}, {**EVENT, "data": {"power": 1}}]
    ).encode(),
    "sparkplug": sparkplug(power=1.5, voltage=230.0),
}
KNOWN_TO_BREAK: tuple[bytes, ...] = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"{" * 10_000,
    b"[" * 10_000,
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"ts": NaN, "device_id": "d", "metric": "m", "value": NaN}',
    b'{"ts": 1767225600, "device_id": "d", "metric": "m", "value": Infinity}',
    b'{"ts": 1767225600, "device_id": "d", "metric": "m", "value": -1e400}',
    b'{"ts": 1e400, "device_id": "d", "metric": "m", "value": 1}',
    b'{"ts": 99999999999999999999999999, "device_id": "d", "metric": "m", "value": 1}',
    b'{"ts": 1767225600, "device_id": "d", "metric": "m", "value": ' + b"9" * 5_000 + b"}",
    b'{"ts": [1], "device_id": {"a": 1}, "metric": null, "value": "1"}',
    b'{"ts": true, "device_id": 5, "metric": 6.5, "value": false}',
    b'{"ts": "\\ud800", "device_id": "\\udfff", "metric": "\\u0000", "value": 1}',
    b'{"\\ud800": 1, "ts": 1767225600, "": 2}',
    b'{"ts": 1, "ts": 2, "device_id": "d", "device_id": "e", "value": 1, "metric": "m"}',
    b'{"knowledge_time": 1, "ts": 1767225600, "device_id": "d", "value": 1}',
    b'[{"n": "a/b", "v": 1, "bver": 99}]',
    b'[{"bn": "a/", "bt": 1e308, "n": "b", "t": 1e308, "v": 1}]',
    b'[{"bn": "a/", "n": "b", "v": 1e308, "bv": 1e308}]',
    b'[{"n": "a/b", "t": NaN, "v": 1}]',
    b'[{"n": "a/b", "v": ' + b"9" * 400 + b"}]",
    b'[{"n": 1, "v": "1"}, 2]',
    b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data_base64": "!"}',
    b'{"specversion": 1.0, "id": 1, "source": [], "type": {}}',
    b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"specversion": "1.0", "id": "1", "source": "s", "type": "t"}}',
    b"m value=1e400 9999999999999999999999999999",
    b"m,a=b c=",
    b'm c="' + b'\\"' * 5_000,
    b"," * 5_000 + b" " * 5_000 + b"=" * 5_000,
    b"m " + b"a=1," * 5_000,
)


def fuzz_payloads(seed: int, count: int) -> Iterator[bytes]:
    """Yield payloads, the same ones for the same seed; every 20,000th is of ten megabytes."""
    source = random.Random(seed)
    valid = list(VALID.values())
    for number in range(count):
        if number % BIG_EVERY == BIG_EVERY // 20:
            yield source.choice([b'{"ts": "' + b"x" * 10_000_000, b"[" + b"1," * 5_000_000, b"\xff" * 10_000_000])
            continue
        kind = source.random()
        if kind < 0.15:
            yield source.randbytes(source.randrange(200))
        elif kind < 0.3:
            yield source.choice(KNOWN_TO_BREAK)
        else:
            yield mutated(source, source.choice(valid))


def mutated(source: random.Random, payload: bytes) -> bytes:
    """Cut a payload short, or change, drop, repeat or mix in a few of its bytes."""
    if source.random() < 0.25:
        return payload[: source.randrange(len(payload))]
    data = bytearray(payload)
    for _ in range(source.randrange(1, 5)):
        at = source.randrange(len(data) + 1)
        size = source.randrange(1, 12)
        other = source.choice(list(VALID.values()))
        start = source.randrange(len(other))
        pieces = (
            b"",
            source.randbytes(1),
            bytes(data[at : at + size]) * 2,
            other[start : start + size],
            source.choice((b'"', b"{", b"}", b",", b"\\", b"\n", b"0")),
        )
        data[at : at + source.randrange(size)] = source.choice(pieces)
    return bytes(data)
