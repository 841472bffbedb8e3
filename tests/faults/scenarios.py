"""What is done to a crew, each of any size: the quick tests run small ones, `tests.faults.run` the large ones.

Each ends in an `Outcome`, which the oracles fill.
"""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import get_args

import polars as pl

from pipeline.failpoints import KILLED, VARIABLE, Failpoint
from pipeline.listen.inbox import Inbox
from pipeline.schemas import Forecasts
from pipeline.store.lake import Lake, read
from tests.faults.crew import Crew
from tests.faults.losses import judged, named
from tests.faults.member import LOOK_S, Member, wait
from tests.faults.oracle import acknowledged, forecast_account, wrong_ticks
from tests.faults.outcome import Outcome

FOLLOWERS_POINTS = tuple(point for point in get_args(Failpoint) if point.startswith(("regularise.", "forecast.")))
LISTENERS_POINTS = tuple(point for point in get_args(Failpoint) if point not in FOLLOWERS_POINTS)
PACES_S = (9.0, 3.0)  # within which a producer and the others die, on average half of it; a producer starts in no time
LAST = "end-of-stream"


def crash_everywhere(crew: Crew) -> Outcome:
    """Let a listener and a follower die once at each failpoint; each life is the recovery from the one before."""
    listener, follower = crew.listener(), crew.follower()
    left = {listener: list(LISTENERS_POINTS), follower: list(FOLLOWERS_POINTS)}
    listener.subscribe(**{VARIABLE: f"{LISTENERS_POINTS[0]}:1"})
    follower.start(**{VARIABLE: f"{FOLLOWERS_POINTS[0]}:1"})
    producer = crew.producer().start()

    def somebody_died() -> bool:
        for member in left:
            member.note_recovery()
        return any(points and not member.is_running() for member, points in left.items())

    while any(left.values()):
        wait(somebody_died, crew.moves)
        for member, points in left.items():
            if points and not member.is_running():
                member.died(KILLED)
                points.pop(0)
                member.start(**({VARIABLE: f"{points[0]}:1"} if points else {}))
    for member in left:
        member.recover()
    return finish(crew, Outcome("a death at each failpoint"), [producer, *left])


def kill_at_random(
    crew: Crew, *, kills: int, seconds: float, faults: float, restarts: int = 0, paces_s: tuple[float, float] = PACES_S
) -> Outcome:
    """Kill listener, follower and producer at random, under a stream with duplicates, disorder and garbage.

    Args:
        crew: that is killed.
        kills: how many at the most.
        seconds: that it takes at the most.
        faults: share of the readings that come twice, of those that come late, and of garbage beside them.
        restarts: of the broker, spread over the stream; graceful, since Mosquitto loses what it has confirmed when it is killed.
        paces_s: within which the producer, and each other process, dies that has committed something.
    """
    listener, follower = crew.listener().subscribe(), crew.follower().start()
    follower.first_word()
    members = [crew.producer(faults).start(), listener, follower]
    for member in members:  # an undisturbed run begins with the fleet; a follower that is killed before that begins later
        member.recover()
    begun, num_restarts = time.monotonic(), 0
    executioner = Executioner(random.Random(crew.fleet.seed), dict(zip(members, (*paces_s, paces_s[1]), strict=True)))
    while executioner.kills < kills and time.monotonic() < begun + seconds:
        done = max(executioner.kills / kills, (time.monotonic() - begun) / seconds)
        if done > (num_restarts + 1) / (restarts + 1):
            num_restarts += 1
            crew.broker.stop()
            crew.broker.start()
        for member in members:
            if executioner.kills < kills:  # two may be due in one round
                executioner.look_at(member)
        time.sleep(LOOK_S)
    took_s = time.monotonic() - begun
    num_faults = int(3 * faults * crew.fleet.num_devices * took_s / crew.fleet.interval_s)
    name = f"kills at random ({executioner.kills} in {took_s:.0f} s), duplicates, disorder, garbage"
    return finish(crew, Outcome(name, faults=num_faults, restarts=num_restarts), members)


class Executioner:
    """Decides when a process dies: within its pace of its first commit; one in five dies within that of its start.

    Attributes:
        kills: so far.
    """

    def __init__(self, dice: random.Random, pace_s: Mapping[Member, float]) -> None:
        self.kills = 0
        self._pace_s = pace_s
        self._dice = dice
        self._due: dict[Member, float] = {}

    def look_at(self, member: Member) -> None:
        """Kill a process that is due, and start it again."""
        if member not in self._due:
            if not member.has_recovered() and self._dice.random() < 0.8:
                self._due[member] = float("inf")
            else:
                self._due[member] = time.monotonic() + self._dice.uniform(0, self._pace_s[member])
        elif self._due[member] == float("inf") and member.has_recovered():
            self._due[member] = time.monotonic() + self._dice.uniform(0, self._pace_s[member])
        elif time.monotonic() > self._due[member]:
            del self._due[member]
            member.kill()
            member.start()
            self.kills += 1


def pairs(crew: Crew, *, rounds: int) -> Outcome:
    """Run two listeners, which take everything twice, and two followers, of which one stands by; kill one of each in turns."""
    listeners = [crew.listener(name).subscribe() for name in ("listener-1", "listener-2")]
    producer = crew.producer().start()
    leading, waiting = crew.follower("follower-1").start(), crew.follower("follower-2").start()
    if "Following" in waiting.first_word():
        leading, waiting = waiting, leading
    for turn in range(rounds):
        leading.recover()
        waiting.first_word()
        listeners[turn % 2].kill()
        leading.kill()
        waiting.recover()
        listeners[turn % 2].start()
        leading.start()
        leading, waiting = waiting, leading
    waiting.kill()
    outcome = finish(crew, Outcome("two listeners and two followers at once"), [producer, *listeners, leading])
    return replace(outcome, recoveries_s=())  # one that stands by commits nothing, however quickly it started


def finish(crew: Crew, outcome: Outcome, members: Sequence[Member]) -> Outcome:
    """End the stream, and fill in what the oracles say; arguments as those of `ended`."""
    return judged(ended(crew, outcome, members), crew.settings.lake, crew.ledger, crew.fleet)


def ended(crew: Crew, outcome: Outcome, members: Sequence[Member]) -> Outcome:
    """End the stream, let everything come through, ask listeners and followers to end, and fill in what the tables say beside the ledger.

    Args:
        crew: of the members.
        outcome: so far.
        members: that still run, the producer first.
    """
    producer, *others = members
    producer.stop()
    take_in_all(crew)
    is_followed = any(member.name.startswith("follower") for member in others)
    if is_followed:
        wait(lambda: is_forecast_through(crew), crew.moves, pause_s=1.0)
    for member in others:
        member.stop()
    kills = sum(member.kills for member in crew.members)
    recoveries_s = [seconds for member in others for seconds in member.recoveries_s]
    forecasts = forecast_account(crew.settings.lake, crew.fleet) if is_followed else None
    wrong = wrong_ticks(crew.settings, crew.fleet)
    failure = named("wrong ticks", wrong) if len(wrong) else ""
    return replace(outcome, kills=kills, recoveries_s=recoveries_s, forecasts=forecasts, wrong_ticks=len(wrong), failure=failure)


def take_in_all(crew: Crew) -> None:
    """Wait until the inbox has a last message, and so all before it: a broker delivers in order."""
    crew.broker.publish(LAST, b"")
    wait(lambda: has_received_last(crew), crew.moves)


def has_received_last(crew: Crew) -> bool:
    """Return whether the last message is among the newest of the inbox."""
    with closing(Inbox(crew.settings.state_dir)) as inbox:
        newest = inbox.read(max(0, inbox.last_seq() - 100), max_messages=100, max_bytes=2**40)  # fuzz has ten megabytes
    return any(stored.message.topic == LAST for stored in newest)


def is_forecast_through(crew: Crew) -> bool:
    """Return whether every device has been forecast from the last tick that it sent a reading of, or a later one."""
    last = acknowledged(crew.ledger, crew.fleet).group_by("series_id").agg(pl.col("ts").max())
    newest = read(Lake(crew.settings.lake).scan(Forecasts).group_by("series_id").agg(pl.col("origin").max()))
    return len(last.join(newest, on="series_id").filter(pl.col("origin") >= pl.col("ts"))) == len(last)
