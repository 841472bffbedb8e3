"""What a scenario comes to: how often something was done to it, and what the oracles say."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.oracle import Account, ForecastAccount


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to.

    Attributes:
        name: of the scenario.
        kills: processes ended by signal 9, or at a failpoint as by one.
        restarts: of the broker.
        faults: readings that were sent twice, late, or as garbage; disks that were filled, clocks that were moved.
        payloads: of fuzz.
        readings: acknowledged against stored; None where there is no producer.
        brokers_loss: readings that the broker confirmed and never delivered, which nobody behind it can bring back.
        forecasts: against their key; None where there is no follower.
        wrong_ticks: ticks whose observation is missing, made up or not what their device measured.
        misplaced: fuzz payloads that are not in quarantine exactly once, whole.
        recoveries_s: from the start of a process that was killed to its first commit.
        facts: what else is worth saying.
        failure: what is not as it should be, beside the numbers; empty where nothing is.
    """

    name: str
    kills: int = 0
    restarts: int = 0
    faults: int = 0
    payloads: int = 0
    readings: Account | None = None
    brokers_loss: int = 0
    forecasts: ForecastAccount | None = None
    wrong_ticks: int = 0
    misplaced: int = 0
    recoveries_s: Sequence[float] = ()
    facts: str = ""
    failure: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost, repeated, made up or left out."""
        accounts = [one for one in (self.readings, self.forecasts) if one is not None]
        return all(one.is_whole for one in accounts) and not any((self.wrong_ticks, self.misplaced, self.failure))
