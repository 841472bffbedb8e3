"""Worker processes give what one process gives, and never outlive their parent."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import TidecastError
from pipeline.study.workers import run_jobs

ROOT = Path(__file__).parents[2]

# Two workers of which each says so and then waits for ever; the parent is killed when the first has spoken.
ORPHANS = """
from functools import partial
from pipeline.study.workers import run_jobs
from tests.pipeline.test_workers import say_and_wait
if __name__ == "__main__":
    list(run_jobs(say_and_wait, [1, 2], 2))
"""


def times(factor: int, job: int) -> int:
    return factor * job


def say_and_wait(job: int) -> None:
    os.write(1, b"working\n")
    os.read(os.pipe()[0], 1)


def vanish(job: int) -> None:
    os._exit(9)


def test_one_worker_is_this_process() -> None:
    assert list(run_jobs(partial(times, os.getpid()), [1, 2], 1)) == [os.getpid(), 2 * os.getpid()]


def test_jobs_are_done_once_and_taken_only_when_a_worker_is_free() -> None:
    """Shown to fail by submitting all jobs at once: a limit of time could then stop none."""
    taken: list[int] = []
    results = run_jobs(partial(times, 3), (taken.append(job) or job for job in range(9)), 2)
    first = next(results)
    assert len(taken) <= 4
    assert sorted([first, *results]) == [3 * job for job in range(9)]


def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do() -> None:
    """Shown to fail by letting BrokenProcessPool through."""
    with pytest.raises(TidecastError, match=r"2 workers to live; got one that was killed.* fewer --workers"):
        list(run_jobs(vanish, [1], 2))


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Shown to fail by starting no thread that watches the pipe: they hold the parent's stdout, which then never ends."""
    (tmp_path / "parent.py").write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"working\n"
    parent.kill()
    parent.communicate(timeout=60)
    assert parent.returncode == -9
