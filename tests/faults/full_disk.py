"""Full disks: under the lake, under the state folder, and under both, while readings keep coming and the listener is killed."""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.schemas import Readings
from pipeline.store.lake import Lake, read
from tests.faults.crew import Crew
from tests.faults.member import Member, wait
from tests.faults.outcome import Outcome
from tests.faults.scenarios import finish
from tests.faults.small_disk import FOLDERS, SmallDisk

LOOK_S = 0.5  # between two looks at a full disk, which is filled up again
ROUNDS = (("lake",), ("state",), ("lake", "state"))
SIGNS = {"lake": "drain failed", "state": "inbox refused"}  # of a listener that has noticed


def full_disks(
    folder: Path,
    *,
    hold_s: float,
    rounds: Sequence[Sequence[str]] = ROUNDS,
    num_devices: int = 10,
    seed: int = 0,
    is_followed: bool = True,
    is_real: bool = True,
) -> Outcome:
    """Fill the disk of the lake, that of the state folder, or both; kill the listener while they are full; free them.

    What a listener acknowledged without storing it would be lost with its life. A process that ends with a sentence of its own is started
    again, as a service manager does; nothing else is done for it. One that crashes fails the run.

    Args:
        folder: of the crew, and of both disks.
        hold_s: how long each disk stays full once the listener has noticed.
        rounds: which disks are filled, one round after the other.
        num_devices: of the fleet.
        seed: of the crew.
        is_followed: whether a follower forecasts meanwhile.
        is_real: mount the disks where this process may; else writing is refused as on a full one.
    """
    disks = {name: SmallDisk(folder / name, is_real=is_real) for name in SIGNS}
    state = str(disks["state"].folder)
    with disks["lake"], disks["state"], Crew(folder, num_devices=num_devices, interval_s=2, seed=seed, state=state) as crew:
        members = _start(crew, disks.values(), is_followed=is_followed)
        for names in rounds:
            filled = {name: disks[name] for name in names}
            wait(lambda: all(member.has_recovered() for member in members[1:]), crew.moves)
            _fill(crew, filled, members, hold_s)
            _free(filled.values(), members, crew.moves)
        what = " and ".join("+".join(names) for names in rounds)
        outcome = finish(crew, Outcome(f"full disks: {what}", faults=len(rounds)), members)
        return replace(outcome, facts=_facts(crew, disks.values(), members), recoveries_s=())  # a start on a full disk is none


def _start(crew: Crew, disks: Collection[SmallDisk], *, is_followed: bool) -> list[Member]:
    """Start the producer, the listener and perhaps a follower, and return them in this order."""
    others = [crew.listener(), *([crew.follower()] if is_followed else [])]
    if not all(disk.is_real for disk in disks):
        for member in others:
            _refuse(member, disks)
    listener, *followers = others
    started = [listener.subscribe(), *(follower.start() for follower in followers)]
    return [crew.producer().start(), *started]


def _facts(crew: Crew, disks: Collection[SmallDisk], members: Sequence[Member]) -> str:
    """Say how disks were full, which processes ended by themselves, and what they left half written."""
    how = "disks of their own" if all(disk.is_real for disk in disks) else "no disk could be mounted, so writing was refused"
    ended = sum(member.num_lives - 1 - member.kills for member in members)
    left = len([*Path(crew.settings.lake).rglob("*#*")])
    return f"{how}; num_ended_by_themselves={ended}, num_half_written_files={left}"


def _refuse(member: Member, disks: Collection[SmallDisk]) -> None:
    """Have a process refused what it writes to a disk that is marked as full."""
    python, option, program = member.command[:3]
    member.command = [python, option, f"import tests.faults.no_space; {program}", *member.command[3:]]
    member.environment[FOLDERS] = os.pathsep.join(str(disk.folder) for disk in disks)


def _fill(crew: Crew, disks: Mapping[str, SmallDisk], members: Sequence[Member], hold_s: float) -> None:
    """Fill disks until the listener has said so, kill it, and keep them full for a time."""
    _, listener, *_ = members
    before = len(listener.said("err"))

    def is_noticed() -> bool:
        for disk in disks.values():
            disk.fill()
        return all(SIGNS[name] in listener.said("err")[before:] for name in disks)

    wait(is_noticed, crew.moves, LOOK_S)
    listener.kill()
    until = time.monotonic() + hold_s
    while time.monotonic() < until:
        for disk in disks.values():
            disk.fill()
        for member in members[1:]:
            member.keep_running()
        read(Lake(crew.settings.lake).scan(Readings))  # a full disk refuses nobody who reads
        time.sleep(LOOK_S)


def _free(disks: Collection[SmallDisk], members: Sequence[Member], moves: Callable[[], object]) -> None:
    """Free disks, and wait until everybody has committed something again."""
    for disk in disks:
        disk.free()
    before = {member: member.committed() for member in members}

    def has_resumed() -> bool:
        for member in members[1:]:
            member.keep_running()
        return all(member.committed() > number for member, number in before.items())

    wait(has_resumed, moves, LOOK_S)
