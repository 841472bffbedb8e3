"""What scenarios came to, as a table in Markdown."""

from collections.abc import Sequence

import numpy as np

from tests.faults.scenarios import Outcome

COLUMNS = ("kills", "restarts of the broker", "faults", "fuzz", "acknowledged", "lost", "repeated", "forecasts", "repeated or left out")
TIMES = ("recovery p50, s", "p95, s")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each outcome and one for all of them; lost holds what is misplaced and wrong too."""
    lines = [f"| {' | '.join(('what was done', *COLUMNS, *TIMES))} |", "|---|" + "---:|" * len(COLUMNS + TIMES)]
    rows = [*((outcome.name, [outcome]) for outcome in outcomes), ("all", list(outcomes))]
    return "\n".join(lines + [_line(name, some) for name, some in rows])


def _line(name: str, outcomes: Sequence[Outcome]) -> str:
    sums = [
        sum(outcome.kills for outcome in outcomes),
        sum(outcome.restarts for outcome in outcomes),
        sum(outcome.faults for outcome in outcomes),
        sum(outcome.payloads for outcome in outcomes),
        sum(outcome.readings.acknowledged for outcome in outcomes),
        sum(outcome.readings.lost + outcome.misplaced + outcome.wrong_ticks for outcome in outcomes),
        sum(outcome.readings.repeated + outcome.readings.strangers for outcome in outcomes),
        sum(outcome.forecasts.stored for outcome in outcomes),
        sum(outcome.forecasts.repeated + outcome.forecasts.left_out for outcome in outcomes),
    ]
    recoveries = [seconds for outcome in outcomes for seconds in outcome.recoveries_s]
    times = [f"{np.percentile(recoveries, level):.1f}" if recoveries else "" for level in (50, 95)]
    return f"| {' | '.join([name, *(f'{number:,}' for number in sums), *times])} |"
