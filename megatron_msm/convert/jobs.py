"""Files of a conversion are written one by one, in this process or side by side in several.

What is written does not depend on how many processes write it.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from megatron_msm.progress import SILENT, Progress

Job = TypeVar("Job")
Result = TypeVar("Result")


def _default_workers() -> int:
    """Return how many processes are worth their memory: one keeps up to three cores busy."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 4))


def run_jobs(
    function: Callable[[Job, Progress], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None,
    num_bytes: Callable[[Job], int],
    progress: Progress,
) -> list[Result]:
    """Return `function(job, progress)` of every job, in their order.

    Args:
        function: Found by name in the other processes, so a module's own.
        jobs: Can be pickled.
        workers: Processes. With one, nothing is started. None: one for each four cores, at most
            4.
        num_bytes: What a job adds to the progress when another process has done it.
        progress: Told as the work goes on, or file by file with several processes.

    Raises:
        Exception: What the first job that failed raised; those not begun are not done.
    """
    workers = min(workers or _default_workers(), len(jobs))
    if workers <= 1:
        return [function(job, progress) for job in jobs]
    # Spawned: a fork would copy whatever threads of torch are in the middle of.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(function, job, SILENT): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                progress.advance(num_bytes(futures[future]))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        return [future.result() for future in futures]
