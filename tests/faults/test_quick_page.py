"""The page of reliability names tests for every fault; they must be there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/reliability.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_of_reliability_names_is_there():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 20
    assert [name for path, name in named if f"def {name}(" not in (TESTS / path).read_text(encoding="utf-8")] == []


def test_every_fault_of_the_research_has_its_row():
    numbers = re.findall(r"^\| (\d+b?) ", PAGE, flags=re.MULTILINE)
    assert numbers == [*(str(number) for number in range(1, 8)), "7b", *(str(number) for number in range(8, 17))]
