"""A fleet, a broker, a listener and a follower, killed at random for minutes, and the proof that nothing is lost, repeated or different.

    python -m tests.faults.show --devices 2000 --seconds 300

A share of the readings comes twice, late, or with garbage beside it. The broker is restarted, not killed: Mosquitto loses what it has
confirmed when it is. In the end everything is run again from the same messages with nothing disturbed, and the forecasts are compared.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.crew import Crew
from tests.faults.interrupts import end_when_asked
from tests.faults.report import remarks, table
from tests.faults.scenarios import kill_at_random
from tests.faults.twin import Comparison, compare, undisturbed


def main() -> None:
    """Show it; ends with 1 where anything was lost, repeated or different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--interval", type=int, default=5, help="of the readings of a device, seconds")
    parser.add_argument("--faults", type=float, default=0.05, help="share of the readings for each kind of fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="folder for the lakes of both runs; without it they are removed, unless something is wrong"
    )
    chosen = parser.parse_args()
    end_when_asked()
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="tidecast-show-"))
    folder.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"the lakes of both runs are in {folder}\n")
    with Crew(folder, num_devices=chosen.devices, interval_s=chosen.interval, seed=chosen.seed) as crew:
        outcome = kill_at_random(crew, kills=10_000, seconds=chosen.seconds, faults=chosen.faults, restarts=int(chosen.seconds // 60))
    sys.stdout.write(f"{table([outcome])}\n{remarks([outcome])}\n")
    found = compare(crew.settings, undisturbed(crew.settings, crew.fleet, folder / "undisturbed"))
    sys.stdout.write(f"{words_of(found)}\n")
    is_right = outcome.is_whole and found.is_same
    if is_right and not chosen.keep:
        shutil.rmtree(folder)
    sys.exit(not is_right)


def words_of(found: Comparison) -> str:
    """Return what a comparison came to."""
    words = (
        f"{found.compared:,} forecasts are in an undisturbed run too, {found.different:,} of them different; "
        f"{found.missing:,} are in that run alone and {found.strange:,} in this one alone. Of the first forecast of each series it is set "
        f"aside what it says, not that it is there: {found.first:,}, of which {found.first_different:,} are different. "
        f"{found.before:,} from before the other run had met the fleet are set aside"
    )
    return words if found.is_same else f"{words}\n{found.examples}"


if __name__ == "__main__":
    main()
