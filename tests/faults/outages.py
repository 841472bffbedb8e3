"""What a broker does to a listener: it is away for a minute, it is killed, it lets the session of one that is away expire.

Mosquitto loses what it has confirmed when it is killed, and what it kept for a session that expires. That is counted (`brokers_loss`):
it was confirmed to the producer and never came to the inbox. Of what did come nothing may be lost.
"""

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from pipeline.listen.inbox import Inbox
from pipeline.settings import ListenSettings, MqttSettings
from tests.faults.crew import Crew
from tests.faults.fleet import Fleet
from tests.faults.losses import judged
from tests.faults.member import Member, wait
from tests.faults.oracle import account
from tests.faults.outcome import Outcome
from tests.faults.producer import Producer
from tests.faults.scenarios import ended, finish, take_in_all

EXPIRY_S = 2
EXPIRING = ListenSettings(drain_interval="PT1S", mqtt=MqttSettings(session_expiry=f"PT{EXPIRY_S}S"))
EXPIRED = "Expiring client listener"  # Mosquitto says so
FORGOTTEN = "the broker has forgotten the session"
NO_SESSION = "the broker has no session of client_id=listener"
DEVICES = 10


def outage(crew: Crew, *, seconds: float, is_followed: bool = True) -> Outcome:
    """Stop the broker for a time, under a stream; producer, listener and, if there is one, follower stay and find it again."""
    members = _started(crew, is_followed=is_followed)
    for member in members:
        member.recover()
    crew.broker.stop()
    time.sleep(seconds)
    crew.broker.start()
    wait(lambda: has_caught_up(crew), crew.moves)
    return finish(crew, Outcome(f"the broker is away for {seconds:.0f} s", restarts=1), members)


def killed_broker(crew: Crew, *, kills: int, is_followed: bool = True) -> Outcome:
    """Kill the broker again and again, under a stream; at every second time the listener is away and comes back after it."""
    members = _started(crew, is_followed=is_followed)
    producer, listener = members[:2]
    for number in range(kills):
        _grow(crew, crew.num_received)
        if number % 2:
            listener.kill()
            _grow(crew, producer.committed)
        crew.broker.kill()
        crew.broker.start()
        if number % 2:
            listener.start()
        wait(lambda number=number: listener.said("err").count("subscribed") > number + 1, crew.moves)  # type: ignore[misc]
    _grow(crew, crew.num_received)
    outcome = ended(crew, Outcome("the broker is killed", restarts=kills), members)
    found = of_delivered(crew, outcome, crew.fleet)
    said = sum(listener.said("err").count(words) for words in (FORGOTTEN, NO_SESSION))
    unsaid = "" if said == kills else f"a listener warned of {said} of {kills} sessions that were lost"
    return replace(found, failure="; ".join(filter(None, (found.failure, unsaid))))


def expired_session(crew: Crew, *, readings: int) -> Outcome:
    """Let the session of a listener that is away expire: what the broker kept for it until then, and what came after, is lost, and no more.

    Args:
        crew: with the settings `EXPIRING`.
        readings: published before the listener leaves, while its session lasts, after that, and when it is back: so many each time.
    """
    listener, start = crew.listener().subscribe(), datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    fleet, away = Fleet(DEVICES, start.isoformat(), 1, crew.fleet.seed), crew.folder / "ledger-away"
    numbers = iter(range(4 * readings))

    def publish(ledger: Path) -> None:
        producer = Producer(crew.broker.port, ledger, "by-turns")
        for number in islice(numbers, readings):
            producer.send(fleet.reading(number % DEVICES, number // DEVICES))
        producer.finish()

    publish(crew.ledger)
    wait(lambda: crew.num_received() == readings, crew.moves)
    listener.stop()
    publish(away)
    wait(lambda: EXPIRED in crew.broker.said(), crew.moves)
    publish(away)
    listener.subscribe()
    publish(crew.ledger)
    take_in_all(crew)
    listener.stop()
    lost = account(crew.settings.lake, away, fleet)
    outcome = judged(Outcome("a session expires", brokers_loss=lost.lost), crew.settings.lake, crew.ledger, fleet)
    words = [outcome.failure]
    if lost.lost != 2 * readings:
        words.append(f"of {2 * readings} readings that the broker dropped {lost.lost} are not there")
    if listener.said("err").count(NO_SESSION) != 1:
        words.append("a listener that comes back requires a warning that its session is gone; it gave none")
    return replace(outcome, failure="; ".join(filter(None, words)))


def has_caught_up(crew: Crew) -> bool:
    """Return whether the ledger holds every reading that is due."""
    due = int((time.time() - crew.fleet.reading(0, 0).ts.timestamp()) / crew.fleet.interval_s)
    return len(crew.ledger.read_text().splitlines()) >= due * crew.fleet.num_devices


def _started(crew: Crew, *, is_followed: bool) -> list[Member]:
    """Return a producer, a listener and perhaps a follower, all started."""
    listener, producer = crew.listener().subscribe(), crew.producer().start()
    return [producer, listener, *([crew.follower().start()] if is_followed else [])]


def _grow(crew: Crew, number: Callable[[], int]) -> None:
    """Wait until a number has grown, by more than what was on its way."""
    for _ in range(2):
        before = number()
        wait(lambda before=before: number() > before, crew.moves, pause_s=0.2)  # type: ignore[misc]


def of_delivered(crew: Crew, outcome: Outcome, fleet: Fleet) -> Outcome:
    """Hold the lake against what was acknowledged and came to the inbox, and count the rest as the broker's loss."""
    with closing(Inbox(crew.settings.state_dir)) as inbox:
        messages = [stored.message for stored in inbox.read(0, max_messages=10**9, max_bytes=2**40)]
    bodies = [json.loads(message.payload) for message in messages if message.topic.startswith("fleet/d")]
    came = {f"{body['device_id']} {body['seq']}" for body in bodies}
    confirmed = set(crew.ledger.read_text().splitlines())
    delivered = crew.folder / "ledger-delivered"
    delivered.write_text("".join(f"{line}\n" for line in sorted(confirmed & came)))
    return judged(replace(outcome, brokers_loss=len(confirmed - came)), crew.settings.lake, delivered, fleet)
