"""The run itself: one that is interrupted leaves no process and no mount behind, one that fails goes on and says what it lost."""

import argparse
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.listen.inbox import Inbox
from pipeline.payloads.message import Message
from pipeline.schemas import EPOCH
from tests.faults.crew import CRASHED, PROGRAM, Crew
from tests.faults.losses import judged
from tests.faults.member import ROOT, DidNotRecoverError, Member, wait
from tests.faults.named_tests import named_tests
from tests.faults.outcome import Outcome
from tests.faults.run import _run, scenarios_of
from tests.faults.scenarios import LAST, has_received_last
from tests.waiting import until

DISKS = ("tests.faults.run", "--only", "disks", "--devices", "8")
SHOW = ("tests.faults.show", "--devices", "2")


@pytest.mark.parametrize(("arguments", "how"), [(DISKS, signal.SIGINT), (DISKS, signal.SIGTERM), (SHOW, signal.SIGTERM)])
def test_a_run_that_is_interrupted_leaves_no_process_and_no_mount(tmp_path, arguments, how):
    command = [sys.executable, "-m", *arguments]
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
    monkeypatch.setattr("tests.faults.member.PATIENCE_S", 0.3)
    monkeypatch.setattr("tests.faults.member.LOOK_FOR_MOVES_S", 0.0)
    steps = iter(range(20))
    wait(lambda: next(steps) == 19, lambda: next(steps), pause_s=0.1)
    with pytest.raises(DidNotRecoverError, match="nothing has moved"):
        wait(lambda: False, lambda: 0)


@pytest.fixture
def member(tmp_path):
    """Return a function that makes a process of a Python program and waits until it has said something."""

    def started(program: str) -> Member:
        one = Member("one", [sys.executable, "-c", program], {}, tmp_path, lambda: 0, lambda: 0).start()
        until(lambda: one.said("err"))
        return one

    return started


WAITS = "import sys, time; sys.stderr.write('begun\\n'); time.sleep(60)"
SAYS = "import sys; sys.exit('a sentence')"
CRASHES = "import flows.cli; flows.cli.main = lambda: 1 / 0\n" + PROGRAM


def test_a_process_that_is_killed_is_counted(member):
    one = member(WAITS)
    one.kill()
    assert one.kills == 1


def test_a_process_that_has_died_by_itself_cannot_be_killed(member):
    one = member(SAYS)
    until(lambda: not one.is_running())
    with pytest.raises(DidNotRecoverError, match="was to end with -9; got 1"):
        one.kill()
    assert one.kills == 0


def test_a_process_that_ends_with_a_sentence_is_started_again(member):
    one = member(SAYS)
    until(lambda: not one.is_running())
    one.keep_running()
    one.end()
    assert one.num_lives == 2


def test_a_tidecast_that_crashes_is_not_started_again(member):
    one = member(CRASHES)
    until(lambda: not one.is_running())
    with pytest.raises(DidNotRecoverError, match=f"got {CRASHED}(.|\\n)*ZeroDivisionError"):
        one.keep_running()


def test_the_last_message_is_found_behind_large_ones(tmp_path):
    crew = Crew(tmp_path, num_devices=1, interval_s=2)
    with closing(Inbox(crew.settings.state_dir)) as inbox:
        inbox.put([Message("mqtt", topic, body, EPOCH) for topic, body in (("fuzz/0", bytes(2**21)), (LAST, b""))])
    assert has_received_last(crew)


def test_a_page_that_names_no_test_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.faults.named_tests.ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/reliability.md").write_text("| fault | test |\n|---|---|\n")
    assert "names no test" in named_tests(tmp_path).failure


@pytest.mark.parametrize("devices", [1, 3, 200])
def test_every_scenario_has_a_device(devices, tmp_path, monkeypatch):
    made: list[int] = []
    monkeypatch.setattr("tests.faults.run.full_disks", lambda _, num_devices, **_others: made.append(num_devices))
    monkeypatch.setattr("tests.faults.run._with_crew", lambda _, num_devices, **_others: made.append(num_devices))
    sizes = {"kills": 1, "payloads": 1, "seconds": 1.0, "restarts": 0, "outage": 1.0, "disks": 1, "commits": 1, "seed": 0}
    scenarios = scenarios_of(argparse.Namespace(devices=devices, **sizes))
    for name in ("minute", "disks"):
        scenarios[name](tmp_path)
    assert made == [max(1, devices // 4)] * 2


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
