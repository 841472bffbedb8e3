"""Write docs/walkthrough.md: run the commands of the walk on a CSV of your own and keep what they print.

    python docs/walkthrough.py PATH/ETTh1.csv

The file is what `tidecast data get etth1` downloads. Everything runs in a temporary folder; nothing but the transcript is kept.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAX_LINES = 40

BORDERS = "--train-end 2017-06-25T23:00Z --validation-end 2017-10-23T23:00Z"
TEST_PERIOD = "--start 2017-10-23T23:00Z --end 2018-02-20T23:00Z"

STEPS: tuple[tuple[str, str], ...] = (
    (
        "Ingest. The stamps of this file carry no zone, so the command asks for one; every column becomes a series.",
        "tidecast ingest ETTh1.csv",
    ),
    ("With the zone it goes in.", "tidecast ingest ETTh1.csv --time-zone UTC"),
    ("Run again, it changes nothing.", "tidecast ingest ETTh1.csv --time-zone UTC --json --no-orchestrator"),
    (
        "Train on the first year, choose the epoch on the next four months, leave the rest unseen: the benchmark's own borders.",
        f"tidecast train --horizon 96 {BORDERS}",
    ),
    (
        "Backtest every origin of the four months after that: 2,785 origins of 7 series, one pass of the live engine.",
        f"tidecast backtest {TEST_PERIOD} --statistical --no-orchestrator",
    ),
    ("Forecast from the newest tick.", "tidecast forecast"),
    ("Run again, it has nothing to do.", "tidecast forecast --json --no-orchestrator"),
    ("Query: the oil temperature a day ahead.", "tidecast query --series ETTh1/OT --lead-time 24h"),
    ("The same as JSON, for the next program.", "tidecast query --series ETTh1/OT --step 24 --json"),
    ("Or as Nixtla's frame.", "tidecast query --metric OT --format nixtla --output forecasts.csv && head -4 forecasts.csv"),
    ("A bidirectional layer is refused, with the reason.", "tidecast train --bidirectional --no-orchestrator"),
)


def main(csv: Path) -> None:
    """Run every step and write the transcript beside this script."""
    parts = [
        "# A walk along the river",
        "Made by `python docs/walkthrough.py ETTh1.csv`: every line below a prompt was printed by the command above it.",
        "The data: an electricity transformer's loads and oil temperature, hourly, 2016 to 2018 (`tidecast data get etth1`).",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copy(csv, folder / "ETTh1.csv")
        for sentence, command in STEPS:
            sys.stderr.write(f"{command}\n")
            parts.append(f"{sentence}\n\n```console\n$ {command}\n{_run(command, folder)}\n```")
    (Path(__file__).with_suffix(".md")).write_text("\n\n".join(parts) + "\n")


def _run(command: str, folder: Path) -> str:
    """Return what a command prints, both streams, shortened, free of this machine's paths; and how it ended."""
    bin_folder = Path(sys.executable).parent
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDECAST_")}
    environment |= {"PATH": f"{bin_folder}:{os.environ['PATH']}", "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    started = time.monotonic()
    done = subprocess.run(  # noqa: S602 (the commands are the constants above)
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    seconds = time.monotonic() - started
    text = re.sub(re.escape(str(folder)) + r"/?", "", done.stdout).rstrip()
    lines = [line.rstrip() for line in text.splitlines()]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 5], f"… ({len(lines) - MAX_LINES + 5} lines more)"]
    ending = f"[exit code {done.returncode}, {seconds:.0f} s]"
    return "\n".join([*lines, ending])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
