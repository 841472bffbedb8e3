"""The fault suite at full size: `make faults`. Prints its table in Markdown, and ends with 1 where anything was lost or repeated.

python -m tests.faults.run --kills 200 --payloads 100000
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.crew import Crew
from tests.faults.power_loss import lose_power
from tests.faults.report import table
from tests.faults.scenarios import Outcome, crash_everywhere, garbage, kill_at_random, pairs


def main() -> None:
    """Run every scenario on a lake of its own, below a folder that goes with the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="at random, of listener, follower and producer")
    parser.add_argument("--payloads", type=int, default=100_000, help="of fuzz, among nine times as many readings")
    parser.add_argument("--seconds", type=float, default=900.0, help="that the random kills take at the most")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disks", type=int, default=300, help="as power failures leave them")
    chosen = parser.parse_args()
    scenarios: list[Callable[[Crew], Outcome]] = [
        crash_everywhere,
        lambda crew: kill_at_random(crew, kills=chosen.kills, seconds=chosen.seconds, faults=0.05, restarts=5),
        lambda crew: pairs(crew, rounds=max(1, chosen.kills // 20)),
        lambda crew: garbage(crew, payloads=chosen.payloads, readings=9 * chosen.payloads, kills=max(1, chosen.payloads // 5_000)),
    ]
    outcomes = []
    for number, scenario in enumerate(scenarios):
        begun = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="tidecast-faults-") as folder,
            Crew(Path(folder), num_devices=chosen.devices, interval_s=2, seed=chosen.seed + number) as crew,
        ):
            outcomes.append(scenario(crew))
        sys.stderr.write(f"{time.monotonic() - begun:.0f} s: {outcomes[-1]}\n")
    outcomes.append(lose_power(disks=chosen.disks, ticks=40, seed=chosen.seed))
    sys.stdout.write(table(outcomes) + "\n")
    sys.exit(not all(outcome.is_whole for outcome in outcomes))


if __name__ == "__main__":
    main()
