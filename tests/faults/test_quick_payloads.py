"""Fuzz among readings, through a real broker and a real listener."""

from tests.faults.crew import Crew
from tests.faults.fuzzing import garbage


def test_every_garbage_payload_is_in_quarantine_once_and_whole_and_harms_no_reading(tmp_path):
    with Crew(tmp_path, num_devices=1, interval_s=5, seed=3) as crew:
        outcome = garbage(crew, payloads=2_000, readings=18_000, kills=1)
    assert outcome.is_whole, outcome
    assert outcome.readings.acknowledged == 18_000
