"""How fast readings reach the lake, and whether the memory stays flat: a filled inbox is drained, NDJSON files are ingested.

    python -m benchmarks.live_ingest [--readings 1000000] [--cases messages,batches,files]

Each measurement is a process of its own, over input that another process has made: once for `--readings`, once for four times as many.
Prints a Markdown table (readings per second, peak resident memory) and one JSON line. The rate of a broker is in `mqtt_rate.py`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.clock import SystemClock
from pipeline.ingest.ingest import IngestOptions, ingest_paths
from pipeline.listen.drain import drain
from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.settings import Settings

NUM_DEVICES = 2_000
BEGAN = timedelta(hours=12)  # before now: no stamp is far behind its arrival
SECOND = timedelta(seconds=1)
PER_MESSAGE = {"messages": 1, "batches": 100}
WHAT = {
    "messages": "inbox to `readings`, one reading a message",
    "batches": "inbox to `readings`, 100 readings a message",
    "files": "NDJSON file to `readings`",
}


def bodies(num_readings: int, per_body: int) -> Iterator[str]:
    """Yield JSON objects, or arrays of them, each of one device: a reading a second of each device, in turn."""
    start = datetime.now(UTC).replace(microsecond=0) - BEGAN
    for first in range(0, num_readings, per_body):
        device, tick = first // per_body % NUM_DEVICES, first // per_body // NUM_DEVICES * per_body
        stamps = ((start + (tick + number) * SECOND).isoformat() for number in range(per_body))
        items = [
            f'{{"ts":"{ts}","device_id":"sensor-{device:04}","metric":"power","value":{first % 977 / 7:.3f},"unit":"kW"}}' for ts in stamps
        ]
        yield items[0] if per_body == 1 else f"[{','.join(items)}]"


def prepare(case: str, num_readings: int, folder: Path) -> None:
    """Make the input of one measurement in a folder."""
    if case == "files":
        with (folder / "readings.ndjson").open("w") as file:
            file.writelines(f"{line}\n" for line in bodies(num_readings, 1))
        return
    inbox, now = Inbox(settings_in(folder).state_dir), datetime.now(UTC)
    waiting: list[Message] = []
    for number, body in enumerate(bodies(num_readings, PER_MESSAGE[case])):
        waiting.append(Message("mqtt", f"site/{number % NUM_DEVICES}", body.encode(), now, "application/json"))
        if len(waiting) == 5_000:
            inbox.put(waiting)
            waiting.clear()
    inbox.put(waiting)
    inbox.close()


def settings_in(folder: Path) -> Settings:
    """Return settings with the lake in a folder; the rest by default."""
    return Settings(lake=str(folder / "lake"))


def measure(case: str, folder: Path) -> dict[str, float]:
    """Bring the prepared input into the lake; return readings, seconds and peak memory in MiB."""
    started, cpu = time.perf_counter(), time.process_time()
    if case == "files":
        accepted = ingest_paths(settings_in(folder), [folder / "readings.ndjson"], IngestOptions(), SystemClock()).accepted
    else:
        accepted = drain(settings_in(folder), SystemClock()).accepted
    return {
        "readings": accepted,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_steps(module: str, case: str, num_readings: int) -> dict[str, float]:
    """Let a benchmark prepare and measure, each in a process of its own; return what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        for step in ("prepare", "measure"):
            command = [sys.executable, "-m", module, "--step", step, "--folder", folder, "--cases", case, "--readings", str(num_readings)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def run(case: str, num_readings: int) -> dict[str, float]:
    """Prepare and measure.

    Raises:
        SystemExit: when a reading did not arrive.
    """
    result = run_steps("benchmarks.live_ingest", case, num_readings)
    if result["readings"] != num_readings:
        raise SystemExit(f"live_ingest requires every reading in the lake; got {result['readings']} of {num_readings}.")
    return result


def main() -> None:
    """Run the measurements, or one step of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=1_000_000)
    parser.add_argument("--cases", default=",".join(WHAT))
    parser.add_argument("--step", choices=("prepare", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(options.cases, options.readings, options.folder)
    elif options.step == "measure":
        print(json.dumps(measure(options.cases, options.folder)))
    else:
        report(options.cases.split(","), options.readings)


def report(cases: list[str], num_readings: int) -> None:
    """Measure each case at one and at four times the size, and print what came out."""
    print("| what | readings | readings/s | CPU s | peak MiB |\n|---|---|---|---|---|")
    results = {}
    for case in cases:
        for times in (1, 4):
            found = results[f"{case} x{times}"] = run(case, times * num_readings)
            rate = found["readings"] / found["seconds"]
            print(f"| {WHAT[case]} | {found['readings']:,.0f} | {rate:,.0f} | {found['cpu_seconds']:.1f} | {found['peak_mib']:.0f} |")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
