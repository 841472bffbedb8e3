"""Other minors of deltalake: what ours wrote is read by them with the same answers, and what they wrote by ours.

python -m tests.faults.upgrade --deltalake 1.5.1

Installs it into a folder of its own, where pip can; else says so and ends with 0, as a machine without a network has proved nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.upgrades import LAKES

ROOT = Path(__file__).parents[2]
MINORS = ("1.5.1",)  # the last before ours; none after ours has been released


def compare(other: str) -> str:
    """Ask the packed lakes of all releases with another deltalake, pack a lake with it, and ask that with ours.

    Args:
        other: version of deltalake.

    Returns:
        What came of it, as a row of a table in Markdown.
    """
    with tempfile.TemporaryDirectory(prefix="tidecast-deltalake-") as folder:
        target = Path(folder, "site")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), f"deltalake=={other}"]
        installed = subprocess.run(pip, capture_output=True, text=True, check=False)
        if installed.returncode:
            return f"| {other} | not installed: {installed.stderr.strip().splitlines()[-1]} | |"
        packed = Path(folder, "theirs.tar.gz")
        theirs = {place.name: _upgrades("ask", place, target) for place in sorted(LAKES.glob("*.tar.gz"))}
        made = _upgrades("make", packed, target) or _upgrades("ask", packed, None)
    read = "; ".join(f"{name}: {fault or 'same answers'}" for name, fault in theirs.items())
    return f"| {other} | {read} | {made or 'same answers'} |"


def _upgrades(verb: str, place: Path, site: Path | None) -> str:
    """Run `tests.upgrades` with another deltalake before ours; return its last line where it failed, else nothing."""
    path = os.pathsep.join(str(folder) for folder in (site, ROOT) if folder is not None)
    command = [sys.executable, "-m", "tests.upgrades", verb, str(place)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1] if done.returncode else ""


def table(others: list[str]) -> str:
    """Compare with each version, and return what came of it in Markdown."""
    ours = version("deltalake")
    head = [f"| deltalake | reads the lakes of the releases | ours ({ours}) reads the lake that it made |", "|---|---|---|"]
    return "\n".join([*head, *map(compare, others)])


def main() -> None:
    """Compare with the versions of the command line; end with 1 where an answer was another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deltalake", nargs="+", default=list(MINORS), metavar="VERSION")
    found = table(parser.parse_args().deltalake)
    sys.stdout.write(found + "\n")
    rows = [row for row in found.splitlines()[2:] if "not installed" not in row]
    sys.exit(any(row.count("same answers") != 1 + len(list(LAKES.glob("*.tar.gz"))) for row in rows))


if __name__ == "__main__":
    main()
