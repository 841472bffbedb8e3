"""Pages that name the tests of their rules are held to them."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(("page", "more_than"), [("event_time", 10), ("reliability", 20)])
def test_every_test_that_a_page_names_is_there(page: str, more_than: int) -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", (TESTS.parent / f"docs/{page}.md").read_text(encoding="utf-8"))
    assert len(named) > more_than
    assert [name for path, name in named if f"def {name}(" not in (TESTS / path).read_text(encoding="utf-8")] == []


def test_every_fault_of_a_trusted_system_has_its_row() -> None:
    page = (TESTS.parent / "docs/reliability.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^\| (\d+b?) ", page, flags=re.MULTILINE)
    assert numbers == [*(str(number) for number in range(1, 8)), "7b", *(str(number) for number in range(8, 17))]
