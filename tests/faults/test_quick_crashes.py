"""The whole chain as processes, killed everywhere: nothing acknowledged is lost, nothing is stored or forecast twice."""

from tests.faults.crew import Crew
from tests.faults.scenarios import FOLLOWERS_POINTS, LISTENERS_POINTS, crash_everywhere, kill_at_random, pairs
from tests.faults.twin import compare, undisturbed


def test_a_death_at_every_step_from_receipt_to_forecast_loses_and_repeats_nothing(tmp_path):
    with Crew(tmp_path, num_devices=10, interval_s=2) as crew:
        outcome = crash_everywhere(crew)
    assert outcome.is_whole, outcome
    assert outcome.kills == len(LISTENERS_POINTS) + len(FOLLOWERS_POINTS)


def test_kills_at_random_lose_and_repeat_nothing_and_forecast_what_an_undisturbed_run_does(tmp_path):
    with Crew(tmp_path, num_devices=10, interval_s=2, seed=1) as crew:
        outcome = kill_at_random(crew, kills=5, seconds=100, faults=0.1)
    assert outcome.is_whole, outcome
    assert outcome.kills == 5
    found = compare(crew.settings, undisturbed(crew.settings, crew.fleet, tmp_path / "undisturbed"))
    assert found.is_same, found


def test_two_listeners_and_two_followers_at_once_lose_and_repeat_nothing(tmp_path):
    with Crew(tmp_path, num_devices=10, interval_s=2, seed=2) as crew:
        outcome = pairs(crew, rounds=1)
    assert outcome.is_whole, outcome
