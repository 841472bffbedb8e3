"""Fuzz among readings, through a real broker and a real listener that is killed meanwhile."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pipeline.payloads.decode import decode
from pipeline.payloads.message import Message
from pipeline.schemas import Quarantine
from pipeline.store.lake import Lake, read
from tests.faults.crew import Crew
from tests.faults.fleet import Fleet, Reading
from tests.faults.losses import judged
from tests.faults.outcome import Outcome
from tests.faults.producer import Producer
from tests.faults.scenarios import take_in_all
from tests.fuzz import fuzz_payloads

FUZZ_DEVICES = 100
TOGETHER = 2_000  # payloads that are decoded at once, of which some have ten megabytes


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
    outcome = Outcome(
        f"fuzz ({len(whole):,} garbage as a whole) among readings",
        kills=listener.kills,
        payloads=payloads,
        misplaced=len(whole) - len(set(found)) + len(found) - len(set(found)),
    )
    return judged(outcome, crew.settings.lake, crew.ledger, fleet)


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
