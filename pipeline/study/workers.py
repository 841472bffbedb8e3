"""Trainings side by side: worker processes of one thread each, none of which outlives its parent.

Called by `pipeline.study.tune` and `pipeline.study.depth`. Two threads of one small network are slower than one; two networks are not.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

from pipeline.errors import TidecastError

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(function: Callable[[Job], Result], jobs: Iterable[Job], num_workers: int) -> Iterator[Result]:
    """Call a function on every job and yield what it returns, as each ends.

    Args:
        function: can be pickled, with the panel that it may carry; sent along with every job.
        jobs: small; each is taken when a worker is free, so that the iterable may stop early.
        num_workers: processes; 1 calls the function here.

    Raises:
        TidecastError: where a worker was killed; what a job raises comes through, and the other jobs are given up.
    """
    if num_workers == 1:
        yield from map(function, jobs)
        return
    context = get_context("spawn")  # a fork would copy the threads' locks of torch and Polars
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start, initargs=(reader,))
    try:
        waiting = iter(jobs)
        running: set[Future[Result]] = {pool.submit(function, job) for job in islice(waiting, num_workers)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(function, job) for job in islice(waiting, len(ended))}
            yield from [future.result() for future in ended]
        pool.shutdown()
    except BrokenProcessPool as error:
        raise TidecastError(
            f"A study requires its {num_workers} workers to live; got one that was killed, most often for want of memory. "
            "Run the command again with fewer --workers: it goes on where it stopped."
        ) from error
    finally:
        writer.close()  # whoever still works ends here
        pool.shutdown(cancel_futures=True)
        reader.close()


def _start(parent: Connection) -> None:
    """Prepare a worker process."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    """End this process when the other end of the pipe is closed: by the parent, or with it, however it was killed."""
    try:
        parent.recv()
    except (EOFError, OSError):
        os._exit(1)
