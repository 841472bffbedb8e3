"""The tests that docs/reliability.md names for its faults, run as they are: what they show needs no larger size."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.faults.member import ROOT
from tests.faults.outcome import Outcome

FULL_SIZE = (  # run larger
    "test_quick_crashes",
    "test_quick_payloads",
    "test_quick_broker",
    "test_quick_power",
    "test_a_full_disk_under_lake",
)
LAST_LINES = 30  # of a failure, which are shown
PATIENCE_S = 60.0  # for tests that are interrupted, and end what they have started


def named_tests(folder: Path) -> Outcome:
    """Run every test that a row of the page names and no scenario runs at full size."""
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = "\n".join(re.findall(r"^\| \d+b? .*", page, flags=re.MULTILINE))
    named = sorted(set(re.findall(r"`([\w/]+/test_\w+\.py(?:::test_\w+)?)`", rows)))
    chosen = [f"tests/{one}" for one in named if not any(larger in one for larger in FULL_SIZE)]
    if not chosen:  # pytest without a name runs the whole suite
        return Outcome("tests of single faults", failure="docs/reliability.md names no test in a row of its table")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={folder / 'pytest'}", *chosen]
    with (folder / "pytest.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(PATIENCE_S)
        log.seek(0)
        said = log.read().splitlines()
    skipped = any(" skipped" in line for line in said[-1:])
    failure = "\n".join(said[-LAST_LINES:]) if code or skipped else ""
    return Outcome(f"{len(chosen)} tests of single faults", facts=said[-1] if said else "", failure=failure)
