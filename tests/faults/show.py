"""A fleet, a broker, a listener and a follower, killed at random for minutes, and the proof that nothing is lost, repeated or different.

    python -m tests.faults.show --devices 2000 --seconds 300

A share of the readings comes twice, late, or with garbage beside it. The broker is restarted, not killed: Mosquitto loses what it has
confirmed when it is. In the end everything is run again from the same messages with nothing disturbed, and the forecasts are compared.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.faults.crew import Crew
from tests.faults.report import table
from tests.faults.scenarios import kill_at_random
from tests.faults.twin import compare, undisturbed


def main() -> None:
    """Show it; ends with 1 where anything was lost, repeated or different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--interval", type=int, default=5, help="of the readings of a device, seconds")
    parser.add_argument("--faults", type=float, default=0.05, help="share of the readings for each kind of fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the lakes of both runs; they are removed without it")
    chosen = parser.parse_args()
    with ExitStack() as ends:
        folder = chosen.keep or Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="tidecast-show-")))
        folder.mkdir(parents=True, exist_ok=True)
        with Crew(folder, num_devices=chosen.devices, interval_s=chosen.interval, seed=chosen.seed) as crew:
            outcome = kill_at_random(crew, kills=10_000, seconds=chosen.seconds, faults=chosen.faults, restarts=int(chosen.seconds // 60))
        sys.stdout.write(table([outcome]) + "\n")
        twin = undisturbed(crew.settings, crew.fleet, folder / "undisturbed")
        found = compare(crew.settings, twin)
    sys.stdout.write(
        f"{found.compared:,} forecasts are in an undisturbed run too, {found.different:,} of them different; "
        f"{found.missing:,} are in that run alone and {found.strange:,} in this one alone. "
        f"The first of each of the {found.first:,} series is set aside: it is made when a series is met, from all that is known then\n"
    )
    if not found.is_same:
        sys.stdout.write(f"{found.examples}\n")
    sys.exit(not (outcome.is_whole and found.is_same))


if __name__ == "__main__":
    main()
