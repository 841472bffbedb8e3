"""What a release has left behind is opened by this one, and gives the answers that it gave then."""

from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline.clock import SystemClock
from pipeline.doctor.doctor import examine
from tests.upgrades import LAKES, ask, differences, settings_of, unpack

PACKED = sorted(LAKES.glob("*.tar.gz"))
PACKED_BYTES = 200_000  # of one lake: it stays in the history of the repository for good


@pytest.mark.parametrize("place", PACKED, ids=lambda place: place.name)
def test_a_lake_of_a_release_gives_the_answers_that_it_gave_then(place: Path, tmp_path: Path) -> None:
    """Shown to fail by another name for the fence of the inbox: the drain takes everything once more."""
    recorded = unpack(place, tmp_path)
    assert all(recorded.values())  # each question has an answer that could be another
    assert examine(settings_of(tmp_path), SystemClock(), deep=True).is_healthy
    assert differences(ask(tmp_path), recorded) == []


def test_this_release_has_packed_its_lake() -> None:
    assert LAKES / f"{version('tidecast')}.tar.gz" in PACKED
    assert [place.name for place in PACKED if place.stat().st_size > PACKED_BYTES] == []


def test_an_answer_that_differs_is_named_by_its_place() -> None:
    """Shown to fail by comparing lists up to the shorter one."""
    was = {"rows": [{"q0.5": 1.0}, {"q0.5": 2.0}]}
    assert differences({"rows": [{"q0.5": 1.000001}, {"q0.5": 2.0, "q0.9": 3.0}], "new": 1}, was) == []
    assert differences({"rows": [{"q0.5": 1.0}, {"q0.5": 2.1}]}, was) == ["/rows/1/q0.5: got 2.1, and it was 2.0"]
    assert len(differences({"rows": was["rows"][:1]}, was)) == len(differences({}, was)) == 1
