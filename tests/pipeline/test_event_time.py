"""The page of event time is held to the tests that it names and to the faults that the simulator knows."""

import re
from pathlib import Path

from pipeline.ingest.fleet import FAULTS, LIVE_FAULTS

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/event_time.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 10
    assert [name for path, name in named if f"def {name}(" not in (TESTS / path).read_text(encoding="utf-8")] == []


def test_every_fault_has_a_rule_and_every_rule_a_fault_that_there_is():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert [fault for fault in FAULTS + LIVE_FAULTS if not any(f"`{fault}`" in row for row in rows)] == []
    assert set(re.findall(r"test_simulated_ingest\.py\[(\w+)\]", "\n".join(rows))) <= set(FAULTS + LIVE_FAULTS)
