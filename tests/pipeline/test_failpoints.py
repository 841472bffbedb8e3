"""A failpoint ends the process at the pass that the environment names, and nowhere else."""

import os
import signal
import subprocess
import sys

import pytest

from pipeline.errors import SettingsError
from pipeline.failpoints import KILLED, VARIABLE, failpoint
from pipeline.settings import load_settings
from tests.waiting import until_stopped

PASSING = "from pipeline.failpoints import failpoint\nfor n in range(3):\n    print(n, flush=True); failpoint('drain.after_read')"


@pytest.mark.parametrize(
    ("asked", "passes", "code"), [("drain.after_read:2", 2, KILLED), ("drain.after_read:4", 3, 0), ("mqtt.after_ack:1", 3, 0)]
)
def test_process_ends_at_the_pass_that_was_asked_for(asked, passes, code) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PASSING], env={**os.environ, VARIABLE: asked}, capture_output=True, text=True, check=False
    )
    assert (len(ended.stdout.split()), ended.returncode) == (passes, code)


def test_a_process_that_was_stopped_goes_on_where_it_was() -> None:
    """Shown to fail by ending it there."""
    asked = {**os.environ, VARIABLE: "drain.after_read:2:stop"}
    with subprocess.Popen([sys.executable, "-c", PASSING], env=asked, stdout=subprocess.PIPE, text=True) as process:
        until_stopped(process)
        process.send_signal(signal.SIGCONT)
        assert process.communicate()[0].split() == ["0", "1", "2"]
    assert process.returncode == 0


@pytest.mark.parametrize(
    "asked", ["drain.after_raed:1", "drain.after_read", "drain.after_read:", "drain.after_read:1:stopp", "drain.after_read:1:stop:2"]
)
def test_a_place_that_does_not_exist_is_told(monkeypatch, asked) -> None:
    """Shown to fail by comparing the name alone: a test with a misspelt place would kill nothing and pass."""
    monkeypatch.setenv(VARIABLE, asked)
    with pytest.raises(SettingsError, match="requires place:passes"):
        failpoint("drain.after_read")


def test_settings_load_beside_a_failpoint(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "drain.after_read:1")
    assert load_settings().lake
