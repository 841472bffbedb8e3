"""What a broker does to a listener that is away, or there."""

from tests.faults.crew import Crew
from tests.faults.deliveries import deliveries
from tests.faults.outages import EXPIRING, expired_session, killed_broker, outage


def test_an_outage_of_the_broker_loses_and_repeats_nothing(tmp_path):
    with Crew(tmp_path, num_devices=5, interval_s=2, seed=4) as crew:
        outcome = outage(crew, seconds=3, is_followed=False)
    assert outcome.is_whole, outcome


def test_a_session_that_expires_loses_what_came_meanwhile_and_no_more_and_is_reported(tmp_path):
    with Crew(tmp_path, num_devices=1, interval_s=5, seed=5, listen=EXPIRING) as crew:
        outcome = expired_session(crew, readings=50)
    assert outcome.is_whole, outcome
    assert outcome.brokers_loss == 100


def test_of_a_broker_that_is_killed_only_what_it_lost_itself_is_lost(tmp_path):
    with Crew(tmp_path, num_devices=5, interval_s=2, seed=6) as crew:
        outcome = killed_broker(crew, kills=2, is_followed=False)
    assert outcome.is_whole, outcome
    assert outcome.brokers_loss > 0


def test_readings_delivered_one_to_three_times_in_any_order_give_the_series_of_one_delivery(tmp_path):
    with Crew(tmp_path, num_devices=1, interval_s=2, seed=7) as crew:
        outcome = deliveries(crew, readings=600)
    assert outcome.is_whole, outcome
    assert outcome.faults > 0
