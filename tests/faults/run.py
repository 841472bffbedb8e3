"""The fault suite at full size: `make faults`. Prints its table in Markdown, and ends with 1 where anything was lost or repeated.

    python -m tests.faults.run --kills 200 --payloads 100000
    python -m tests.faults.run --only disks,outage

Each scenario has a folder of its own. One that fails keeps it and says what is lost or repeated, and the run goes on to the next. Every
15 seconds a line says how far it is: bytes of the ledger, newest commit of each table. Ctrl-C, SIGTERM and any failure end every process
that was started.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.faults.crew import Crew, newest_commit
from tests.faults.deliveries import deliveries
from tests.faults.full_disk import full_disks
from tests.faults.fuzzing import garbage
from tests.faults.interrupts import end_when_asked
from tests.faults.long_log import long_log
from tests.faults.named_tests import named_tests
from tests.faults.outages import EXPIRING, expired_session, killed_broker, outage
from tests.faults.outcome import Outcome
from tests.faults.power_loss import lose_power
from tests.faults.report import recovery, remarks, table
from tests.faults.scenarios import crash_everywhere, kill_at_random, pairs

INTERVAL_S = 2
SAY_EVERY_S = 15.0
QUICK_KILLS, QUICK_S, QUICK_PACES_S = 50, 60.0, (0.7, 0.7)  # what recovery times are asked of

Scenario = Callable[[Path], Outcome]


def scenarios_of(chosen: argparse.Namespace) -> dict[str, Scenario]:
    """Return every scenario at its size, by name."""

    def crew(run: Callable[[Crew], Outcome], num_devices: int = chosen.devices, **settings: object) -> Scenario:
        return partial(_with_crew, run=run, num_devices=num_devices, seed=chosen.seed, **settings)

    quick, quarter = min(chosen.kills, QUICK_KILLS), max(1, chosen.devices // 4)
    return {
        "steps": crew(crash_everywhere),
        "minute": crew(lambda one: _timed_kills(one, kills=quick), quarter),
        "kills": crew(lambda one: kill_at_random(one, kills=chosen.kills, seconds=chosen.seconds, faults=0.05, restarts=chosen.restarts)),
        "pairs": crew(lambda one: pairs(one, rounds=max(1, chosen.kills // 20))),
        "deliveries": crew(lambda one: deliveries(one, readings=chosen.payloads // 2)),
        "disks": partial(full_disks, hold_s=10.0, num_devices=quarter, seed=chosen.seed),
        "outage": crew(lambda one: outage(one, seconds=chosen.outage)),
        "broker": crew(lambda one: killed_broker(one, kills=4)),
        "expiry": crew(lambda one: expired_session(one, readings=chosen.payloads // 20), listen=EXPIRING),
        "fuzz": crew(
            lambda one: garbage(one, payloads=chosen.payloads, readings=4 * chosen.payloads, kills=max(1, chosen.payloads // 5_000))
        ),
        "power": lambda _: lose_power(disks=chosen.disks, ticks=40, seed=chosen.seed),
        "log": partial(long_log, commits=chosen.commits),
        "single": named_tests,
    }


def main() -> None:
    """Run the scenarios one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="at random, of listener, follower and producer")
    parser.add_argument("--payloads", type=int, default=100_000, help="of fuzz, among four times as many readings")
    parser.add_argument("--seconds", type=float, default=900.0, help="that the random kills take at the most")
    parser.add_argument("--restarts", type=int, default=5, help="of the broker, meanwhile")
    parser.add_argument("--outage", type=float, default=60.0, help="of the broker, seconds")
    parser.add_argument("--disks", type=int, default=300, help="as power failures leave them")
    parser.add_argument("--commits", type=int, default=20_000, help="of the long log")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of scenarios, with commas between")
    chosen = parser.parse_args()
    end_when_asked()
    known = scenarios_of(chosen)
    names = chosen.only.split(",") if chosen.only else list(known)
    if unknown := set(names) - set(known):
        parser.error(f"--only requires names of {', '.join(known)}; got {', '.join(unknown)}")
    begun, outcomes = time.monotonic(), []
    for number, name in enumerate(names):
        outcomes.append(_run(name, known[name], f"{number + 1}/{len(names)} {name}"))
    sys.stdout.write(f"{table(outcomes)}\n\n{remarks(outcomes)}\n{(time.monotonic() - begun) / 60:.0f} minutes\n")
    sys.exit(not all(outcome.is_whole for outcome in outcomes))


def _run(name: str, scenario: Scenario, title: str) -> Outcome:
    """Run a scenario in a folder, which stays where it fails or is interrupted."""
    folder, begun = Path(tempfile.mkdtemp(prefix=f"tidecast-faults-{name}-")), time.monotonic()
    _say(f"{title}: begins in {folder}")
    try:
        with _followed(folder):
            outcome = scenario(folder)
    except Exception as error:  # noqa: BLE001 (the run's edge: the other scenarios are run all the same)
        traceback.print_exc()
        outcome = Outcome(name, failure=f"{type(error).__name__}: {error}")
    if outcome.is_whole:
        shutil.rmtree(folder)
    else:
        outcome = replace(outcome, failure=f"{outcome.failure} (its folder is {folder})")
    _say(f"{title}: {time.monotonic() - begun:.0f} s, {'as it should be' if outcome.is_whole else 'FAILED'}: {outcome}")
    return outcome


def _with_crew(folder: Path, *, run: Callable[[Crew], Outcome], num_devices: int, seed: int, **settings: object) -> Outcome:
    with Crew(folder, num_devices=num_devices, interval_s=INTERVAL_S, seed=seed, **settings) as crew:
        return run(crew)


def _timed_kills(crew: Crew, *, kills: int) -> Outcome:
    """Kill as many in a minute as the recovery times are asked of."""
    outcome = kill_at_random(crew, kills=kills, seconds=QUICK_S, faults=0.05, paces_s=QUICK_PACES_S)
    return replace(outcome, facts=recovery(outcome))


@contextmanager
def _followed(folder: Path) -> Iterator[None]:
    """Say now and then how far a scenario is, from what it leaves in its folder."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(SAY_EVERY_S):
            _say(f"    {_progress(folder) or 'at work'}")

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _progress(folder: Path) -> str:
    """Return the size of the ledger, the newest commit of each table, and the last line of the tests' log, of what there is."""
    sizes = {ledger.name: ledger.stat().st_size for ledger in folder.glob("ledger*")}
    newest = {log.parent.name: newest_commit(log) for log in sorted(folder.glob("lake/*/_delta_log"))}
    facts = [f"{name}={number}" for name, number in {**sizes, **newest}.items() if number]
    return " ".join([*facts, *(log.read_text().splitlines()[-1] for log in folder.glob("pytest.log") if log.stat().st_size)])


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
