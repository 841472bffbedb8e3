"""How much garbage slows a drain: the same readings are drained alone, and among so many broken messages that one in ten is broken.

    python -m benchmarks.garbage_rate [--readings 180000] [--rounds 3]

Every drain is a process of its own over an inbox that another process has filled; clean and mixed ones take turns, and what counts is
processor time, because of what else runs on the machine. Each kind of garbage is an equal share, of about the size of a good message:
cut short, members of wrong types, text for a value, NaN, 1e400, a byte that is no UTF-8, deep nesting, nothing at all, random bytes.
Prints a Markdown table (messages, and good readings among them, a second of processor time, and how much less that is) and one JSON line.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.live_ingest import NUM_DEVICES, bodies, run_steps, settings_in
from pipeline.clock import SystemClock
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message

EVERY = 10  # messages, of which one is garbage
STAMP, VALUE = re.compile(rb'"ts":"[^"]*"'), re.compile(rb'"value":[^,]*')
KINDS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "cut short": lambda dice, good: good[: dice.randrange(1, len(good))],
    "wrong types": lambda _, good: STAMP.sub(b'"ts":true', VALUE.sub(b'"value":[20.5]', good)),
    "text for a value": lambda _, good: VALUE.sub(b'"value":"offline"', good),
    "NaN": lambda _, good: VALUE.sub(b'"value":NaN', good),
    "1e400": lambda _, good: VALUE.sub(b'"value":1e400', good),
    "no UTF-8": lambda dice, good: good[: (at := dice.randrange(len(good)))] + b"\xff" + good[at + 1 :],
    "deep nesting": lambda _, good: b"[" * len(good),
    "nothing": lambda *_: b"",
    "random bytes": lambda dice, good: dice.randbytes(len(good)),
}
CASES = ("clean", "mixed", *KINDS)


def payloads(case: str, num_readings: int) -> Iterator[bytes]:
    """Yield good messages of one reading each, and garbage of a kind, or of all kinds, among them."""
    dice = random.Random(0)
    kinds = [] if case == "clean" else list(KINDS.values()) if case == "mixed" else [KINDS[case]]
    for body in bodies(num_readings, 1):
        good = body.encode()
        if kinds and dice.randrange(EVERY - 1) == 0:
            yield dice.choice(kinds)(dice, good)
        yield good


def prepare(case: str, num_readings: int, folder: Path) -> None:
    """Fill the inbox of a folder."""
    inbox, now = Inbox(settings_in(folder).state_dir), datetime.now(UTC)
    sent = [Message("mqtt", f"site/{number % NUM_DEVICES}", one, now) for number, one in enumerate(payloads(case, num_readings))]
    inbox.put(sent)
    inbox.close()


def measure(folder: Path) -> dict[str, float]:
    """Drain it."""
    cpu = time.process_time()
    done = drain(settings_in(folder), SystemClock())
    return {
        "messages": done.messages,
        "accepted": done.accepted,
        "quarantined": done.quarantined,
        "cpu_s": time.process_time() - cpu,
    }


def run(case: str, num_readings: int) -> dict[str, float]:
    """Prepare and measure.

    Raises:
        SystemExit: when a good reading did not arrive.
    """
    found = run_steps("benchmarks.garbage_rate", case, num_readings)
    if found["accepted"] < num_readings:
        raise SystemExit(f"garbage_rate requires every good reading in the lake; got {found['accepted']} of {num_readings}.")
    return found


def report(cases: list[str], num_readings: int, rounds: int) -> None:
    """Measure each case between clean drains and print what came out."""
    found: dict[str, list[dict[str, float]]] = {case: [] for case in ("clean", *cases)}
    for _ in range(rounds):
        for case, results in found.items():
            results.append(run(case, num_readings))
    seconds = {case: median(one["cpu_s"] for one in results) for case, results in found.items()}
    print("| garbage | messages | readings | quarantined | messages/s | lost | good readings/s | lost |")
    print(f"|---|{'---:|' * 7}")
    for case, results in found.items():
        facts = (f"{results[0][name]:,.0f}" for name in ("messages", "accepted", "quarantined"))
        rates = []
        for count, clean in ((results[0]["messages"], found["clean"][0]["messages"]), (num_readings, num_readings)):
            rate = count / seconds[case]
            rates += [f"{rate:,.0f}", f"{1 - rate * seconds['clean'] / clean:.0%}"]
        print(f"| {case} | {' | '.join((*facts, *rates))} |")
    print(json.dumps(found))


def main() -> None:
    """Run the measurements, or one step of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=180_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="mixed", help=f"of {', '.join(CASES[1:])}")
    parser.add_argument("--step", choices=("prepare", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(options.cases, options.readings, options.folder)
    elif options.step == "measure":
        print(json.dumps(measure(options.folder)))
    else:
        report(options.cases.split(","), options.readings, options.rounds)


if __name__ == "__main__":
    main()
