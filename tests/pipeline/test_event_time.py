"""The page of event time is held to the faults that the simulator knows; `tests/test_pages.py` holds it to the tests that it names."""

import re
from pathlib import Path

from pipeline.ingest.fleet import FAULTS, LIVE_FAULTS

PAGE = (Path(__file__).parents[2] / "docs/event_time.md").read_text(encoding="utf-8")


def test_every_fault_has_a_rule_and_every_rule_a_fault_that_there_is():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert [fault for fault in FAULTS + LIVE_FAULTS if not any(f"`{fault}`" in row for row in rows)] == []
    assert set(re.findall(r"test_simulated_ingest\.py\[(\w+)\]", "\n".join(rows))) <= set(FAULTS + LIVE_FAULTS)
