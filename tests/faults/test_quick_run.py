"""The run itself: one that is interrupted leaves no process and no mount behind, one that fails goes on and says what it lost."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.crew import ROOT, Crew, DidNotRecoverError, wait
from tests.faults.losses import judged
from tests.faults.outcome import Outcome
from tests.faults.run import _run
from tests.waiting import until


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_no_process_and_no_mount(tmp_path, how):
    command = [sys.executable, "-m", "tests.faults.run", "--only", "disks", "--devices", "8"]
    environment = {"TMPDIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: len(processes_of(run.pid)) >= 4)  # the run, the broker, the producer or the follower, the listener
    run.send_signal(how)
    assert run.wait(60) != 0
    assert processes_of(run.pid) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_a_scenario_that_fails_keeps_its_folder_and_ends_no_run():
    def loses(_folder: Path) -> Outcome:
        raise DidNotRecoverError("nothing moves")

    outcome = _run("broken", loses, "1/1")
    folder = Path(outcome.failure.rpartition("folder is ")[2].rstrip(")"))
    assert "nothing moves" in outcome.failure
    folder.rmdir()


def test_what_is_lost_is_named(tmp_path):
    crew = Crew(tmp_path, num_devices=3, interval_s=2)
    crew.ledger.write_text("d00000 1\nd00002 4\n")
    outcome = judged(Outcome("lossy"), crew.settings.lake, crew.ledger, crew.fleet)
    assert not outcome.is_whole
    assert outcome.failure.startswith("2 lost: d00000/temperature ")


def test_a_wait_ends_when_nothing_moves_and_not_while_something_does(monkeypatch):
    monkeypatch.setattr("tests.faults.crew.PATIENCE_S", 0.3)
    monkeypatch.setattr("tests.faults.crew.LOOK_FOR_MOVES_S", 0.0)
    steps = iter(range(20))
    wait(lambda: next(steps) == 19, lambda: next(steps), pause_s=0.1)
    with pytest.raises(DidNotRecoverError, match="nothing has moved"):
        wait(lambda: False, lambda: 0)


def processes_of(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(") ")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found
