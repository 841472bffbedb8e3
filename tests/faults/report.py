"""What scenarios came to, as a table in Markdown."""

from collections.abc import Sequence

import numpy as np

from tests.faults.outcome import Outcome

COLUMNS = (
    "kills",
    "restarts of the broker",
    "faults",
    "fuzz",
    "acknowledged",
    "lost",
    "repeated",
    "lost by the broker",
    "forecasts",
    "repeated or left out",
)
TIMES = ("recovery p50, s", "p95, s")
ASKED_S = 5.0  # of the 95th percentile of the recoveries, at 50 kills in 60 s


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each outcome and one for all of them; lost holds what is misplaced and wrong too."""
    lines = [f"| {' | '.join(('what was done', *COLUMNS, *TIMES))} |", "|---|" + "---:|" * len(COLUMNS + TIMES)]
    rows = [*((f"{outcome.name}{' **failed**' * (not outcome.is_whole)}", [outcome]) for outcome in outcomes), ("all", list(outcomes))]
    return "\n".join(lines + [_line(name, some) for name, some in rows])


def remarks(outcomes: Sequence[Outcome]) -> str:
    """Return what the table has no column for, a line for each outcome that has such, and what is wrong in words."""
    said = [f"- {outcome.name}: {outcome.facts}" for outcome in outcomes if outcome.facts]
    failed = [f"- FAILED, {outcome.name}: {outcome.failure or outcome}" for outcome in outcomes if not outcome.is_whole]
    return "\n".join(said + failed)


def recovery(outcome: Outcome) -> str:
    """Return how the recoveries of an outcome compare with what is asked; time does not fail a run, since others may use the machine."""
    p95 = float(np.percentile(outcome.recoveries_s, 95)) if outcome.recoveries_s else float("nan")
    return f"recovery p95 {p95:.1f} s of {len(outcome.recoveries_s)}, asked: below {ASKED_S:.0f} s: {'met' if p95 < ASKED_S else 'not met'}"


def _line(name: str, outcomes: Sequence[Outcome]) -> str:
    accounts = [outcome.readings for outcome in outcomes if outcome.readings is not None]
    forecasts = [outcome.forecasts for outcome in outcomes if outcome.forecasts is not None]
    sums = [
        sum(outcome.kills for outcome in outcomes),
        sum(outcome.restarts for outcome in outcomes),
        sum(outcome.faults for outcome in outcomes),
        sum(outcome.payloads for outcome in outcomes),
        sum(account.acknowledged for account in accounts),
        sum(account.lost for account in accounts) + sum(outcome.misplaced + outcome.wrong_ticks for outcome in outcomes),
        sum(account.repeated + account.strangers for account in accounts),
        sum(outcome.brokers_loss for outcome in outcomes),
        sum(account.stored for account in forecasts),
        sum(account.repeated + account.left_out for account in forecasts),
    ]
    recoveries = [seconds for outcome in outcomes for seconds in outcome.recoveries_s]
    times = [f"{np.percentile(recoveries, level):.1f}" if recoveries else "" for level in (50, 95)]
    return f"| {' | '.join([name, *(f'{number:,}' for number in sums), *times])} |"
