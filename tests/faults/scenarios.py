"""What is done to a crew, each of any size: the quick tests run small ones, `tests.faults.run` the large ones.

Each ends in an `Outcome`, which the oracles fill.
"""

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import polars as pl

from pipeline.failpoints import KILLED, VARIABLE, Failpoint
from pipeline.listen.inbox import Inbox
from pipeline.payloads.decode import decode
from pipeline.payloads.message import Message
from pipeline.schemas import Forecasts, Quarantine
from pipeline.store.lake import Lake, read
from tests.faults.crew import LOOK_S, Crew, Member, wait
from tests.faults.fleet import Fleet, Reading
from tests.faults.oracle import Account, ForecastAccount, account, forecast_account, frame_of, wrong_ticks
from tests.faults.producer import Producer
from tests.fuzz import fuzz_payloads

FOLLOWERS_POINTS = tuple(point for point in get_args(Failpoint) if point.startswith(("regularise.", "forecast.")))
LISTENERS_POINTS = tuple(point for point in get_args(Failpoint) if point not in FOLLOWERS_POINTS)
FUZZ_DEVICES = 100
TOGETHER = 2_000  # payloads that are decoded at once, of which some have ten megabytes
LAST = "end-of-stream"


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to.

    Attributes:
        name: of the scenario.
        kills: processes ended by signal 9, or at a failpoint as by one.
        restarts: of the broker, each graceful.
        faults: readings that were sent twice, late, or as garbage.
        payloads: of fuzz.
        readings: acknowledged against stored.
        forecasts: against their key.
        wrong_ticks: observations that are not what their device measured.
        misplaced: fuzz payloads that are not in quarantine exactly once, whole.
        recoveries_s: from the start of a process that was killed to its first commit.
    """

    name: str
    kills: int = 0
    restarts: int = 0
    faults: int = 0
    payloads: int = 0
    readings: Account = field(default_factory=lambda: Account(1, 1, 0, 0, 0))
    forecasts: ForecastAccount = field(default_factory=lambda: ForecastAccount(0, 0, 0))
    wrong_ticks: int = 0
    misplaced: int = 0
    recoveries_s: Sequence[float] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost, repeated, made up or left out."""
        faults = (self.forecasts.repeated, self.forecasts.left_out, self.wrong_ticks, self.misplaced)
        return self.readings.is_whole and not any(faults)


def crash_everywhere(crew: Crew) -> Outcome:
    """Let a listener and a follower die once at each failpoint; each life is the recovery from the one before."""
    listener, follower = crew.listener(), crew.follower()
    left = {listener: list(LISTENERS_POINTS), follower: list(FOLLOWERS_POINTS)}
    listener.subscribe(**{VARIABLE: f"{LISTENERS_POINTS[0]}:1"})
    follower.start(**{VARIABLE: f"{FOLLOWERS_POINTS[0]}:1"})
    producer = crew.producer().start()
    while any(left.values()):
        wait(lambda: any(points and not member.is_running() for member, points in left.items()), crew.moves)
        for member, points in left.items():
            if points and not member.is_running():
                member.died(KILLED)
                points.pop(0)
                member.start(**({VARIABLE: f"{points[0]}:1"} if points else {}))
    for member in left:
        member.recover()
    return finish(crew, Outcome("a death at each failpoint"), [producer, *left])


def kill_at_random(crew: Crew, *, kills: int, seconds: float, faults: float, restarts: int = 0) -> Outcome:
    """Kill listener, follower and producer at random, under a stream with duplicates, disorder and garbage.

    Args:
        crew: that is killed.
        kills: how many at the most.
        seconds: that it takes at the most.
        faults: share of the readings that come twice, of those that come late, and of garbage beside them.
        restarts: of the broker, spread over the stream; graceful, since Mosquitto loses what it has confirmed when it is killed.
    """
    listener, follower = crew.listener().subscribe(), crew.follower().start()
    members = [crew.producer(faults).start(), listener, follower]
    begun = time.monotonic()
    restart_at = [begun + seconds * (number + 1) / (restarts + 1) for number in range(restarts)]
    executioner = Executioner(random.Random(crew.fleet.seed))
    while executioner.kills < kills and time.monotonic() < begun + seconds:
        if restart_at and time.monotonic() > restart_at[0]:
            restart_at.pop(0)
            crew.broker.stop()
            crew.broker.start()
        for member in members:
            executioner.look_at(member)
        time.sleep(LOOK_S)
    num_faults = int(3 * faults * crew.fleet.num_devices * (time.monotonic() - begun) / crew.fleet.interval_s)
    outcome = Outcome("kills at random, duplicates, disorder, garbage", faults=num_faults, restarts=restarts - len(restart_at))
    return finish(crew, outcome, members)


class Executioner:
    """Decides when a process dies: within three seconds of its first commit; one in five dies within three seconds of its start.

    Attributes:
        kills: so far.
    """

    def __init__(self, dice: random.Random) -> None:
        self.kills = 0
        self._dice = dice
        self._due: dict[Member, float] = {}

    def look_at(self, member: Member) -> None:
        """Kill a process that is due, and start it again."""
        if member not in self._due:
            if not member.has_recovered() and self._dice.random() < 0.8:
                self._due[member] = float("inf")
            else:
                self._due[member] = time.monotonic() + self._dice.uniform(0, 3)
        elif self._due[member] == float("inf") and member.has_recovered():
            self._due[member] = time.monotonic() + self._dice.uniform(0, 3)
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


def garbage(crew: Crew, *, payloads: int, readings: int, kills: int = 0) -> Outcome:
    """Publish fuzz, each payload on a topic of its own, among readings; what is no reading must be in quarantine once, whole.

    Assumes: the decoder is the judge of what is garbage as a whole, and has tests of its own; the rest of the way is judged by its bytes.
    """
    listener, seed = crew.listener().subscribe(), crew.fleet.seed
    producer, dice = Producer(crew.broker.port, crew.ledger, "fuzz"), random.Random(seed)
    fleet = Fleet(FUZZ_DEVICES, (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0).isoformat(), 1, seed)
    fuzz = {f"fuzz/{number}": payload for number, payload in enumerate(fuzz_payloads(seed, payloads))}
    good = (fleet.reading(number % FUZZ_DEVICES, number // FUZZ_DEVICES) for number in range(readings))
    sent: list[tuple[str, bytes] | Reading] = [*fuzz.items(), *good]
    dice.shuffle(sent)
    deaths = set(dice.sample(range(len(sent)), kills))
    for number, one in enumerate(sent):
        if isinstance(one, Reading):
            producer.send(one)
        else:
            producer.send(one[1], topic=one[0])
        if number in deaths:
            listener.recover()
            listener.kill()
            listener.start()
    producer.finish()
    take_in_all(crew)
    listener.stop()
    whole = whole_garbage(fuzz)
    kept = read(Lake(crew.settings.lake).scan(Quarantine).select("connector", "payload")).rows()
    found = [row for row in kept if row in whole]
    return Outcome(
        f"fuzz ({len(whole):,} garbage as a whole) among readings",
        kills=listener.kills,
        payloads=payloads,
        readings=account(crew.settings.lake, crew.ledger, fleet),
        misplaced=len(whole) - len(set(found)) + len(found) - len(set(found)),
    )


def finish(crew: Crew, outcome: Outcome, members: Sequence[Member]) -> Outcome:
    """End the stream, let everything come through, ask listeners and followers to end, and fill in what the oracles say.

    Args:
        crew: of the members.
        outcome: so far.
        members: that still run, the producer first.
    """
    producer, *others = members
    producer.stop()
    take_in_all(crew)
    wait(lambda: is_forecast_through(crew), crew.moves, pause_s=1.0)
    for member in others:
        member.stop()
    lake = crew.settings.lake
    return replace(
        outcome,
        kills=sum(member.kills for member in crew.members),
        readings=account(lake, crew.ledger, crew.fleet),
        forecasts=forecast_account(lake, crew.fleet),
        wrong_ticks=wrong_ticks(lake, crew.fleet),
        recoveries_s=[seconds for member in others for seconds in member.recoveries_s],
    )


def take_in_all(crew: Crew) -> None:
    """Wait until the inbox has a last message, and so all before it: a broker delivers in order."""
    crew.broker.publish(LAST, b"")
    wait(lambda: has_received_last(crew), crew.moves)


def has_received_last(crew: Crew) -> bool:
    """Return whether the last message is among the newest of the inbox."""
    with closing(Inbox(crew.settings.state_dir)) as inbox:
        newest = inbox.read(max(0, inbox.last_seq() - 100), max_messages=100, max_bytes=2**20)
    return any(stored.message.topic == LAST for stored in newest)


def is_forecast_through(crew: Crew) -> bool:
    """Return whether every device has been forecast from the last tick that it sent a reading of, or a later one."""
    lines = [line.split() for line in crew.ledger.read_text().splitlines()]
    last = frame_of(crew.fleet, {(int(device[1:]), int(seq)) for device, seq in lines}).group_by("series_id").agg(pl.col("ts").max())
    newest = read(Lake(crew.settings.lake).scan(Forecasts).group_by("series_id").agg(pl.col("origin").max()))
    return len(last.join(newest, on="series_id").filter(pl.col("origin") >= pl.col("ts"))) == len(last)


def whole_garbage(sent: Mapping[str, bytes]) -> set[tuple[str, bytes]]:
    """Return connector and payload of the messages, by topic, of which no part can be read."""
    found, topics = set(), list(sent)
    for first in range(0, len(topics), TOGETHER):
        some = topics[first : first + TOGETHER]
        batches = decode([Message("mqtt", topic, sent[topic], datetime.now(UTC)) for topic in some], ())
        readable = {line for batch in batches for line in batch.origins["line"]}
        broken = {row for batch in batches for row in batch.broken.select("position", "payload").iter_rows()}
        lines = [line for line, topic in enumerate(some) if line not in readable and (f"message:{line}", sent[topic]) in broken]
        found |= {(f"mqtt:{some[line]}", sent[some[line]]) for line in lines}
    return found
