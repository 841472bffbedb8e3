"""A fleet, a broker, a listener and a follower, killed at random for minutes, and the proof that nothing is lost, repeated or different.

    python -m tests.faults.show --devices 2000 --seconds 300

A share of the readings comes twice, late, or with garbage beside it. The broker is restarted, not killed: Mosquitto loses what it has
confirmed when it is. In the end everything is run again from the same messages with nothing disturbed, and the forecasts are compared.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.crew import Crew
from tests.faults.report import table
from tests.faults.scenarios import kill_at_random
from tests.faults.twin import compare, undisturbed


def main() -> None:
    """Show it; ends with 1 where anything was lost or repeated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--interval", type=int, default=5, help="of the readings of a device, seconds")
    parser.add_argument("--faults", type=float, default=0.05, help="share of the readings for each kind of fault")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidecast-show-") as folder:
        with Crew(Path(folder), num_devices=chosen.devices, interval_s=chosen.interval, seed=chosen.seed) as crew:
            outcome = kill_at_random(crew, kills=10_000, seconds=chosen.seconds, faults=chosen.faults, restarts=int(chosen.seconds // 60))
        sys.stdout.write(table([outcome]) + "\n")
        twin = undisturbed(crew.settings, crew.fleet, Path(folder) / "undisturbed")
        found = compare(crew.settings, twin, crew.fleet)
    sys.stdout.write(
        f"{found.compared:,} forecasts against an undisturbed run: {found.missing:,} missing there, {found.different:,} different, "
        f"of which {found.different_on_time:,} were not caught up on\n"
    )
    sys.exit(not outcome.is_whole)


if __name__ == "__main__":
    main()
