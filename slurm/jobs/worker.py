"""What runs on a compute node: one process per task, which starts and watches the real one.

submitit's own signal handler saves rank 0 alone and requeues at once, so it is replaced here: the
training ranks agree on a step, all save it and end with status 75 (`megatron_msm.train`). This
process stays out of their way, names what they died of, and asks the batch script to requeue the
job by a file: `scontrol` need not exist in a container.

Its own memory is small, and it survives what kills a rank: out of memory, a broken extension, exit
without clean-up.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import submitit

from megatron_msm.errors import ConfigError, PreemptedError
from megatron_msm.own_packages import python_module
from slurm.jobs.attempts import Attempt, read_attempts, record_attempt
from slurm.jobs.failures import Failure, diagnose
from slurm.jobs.job import Job, read_job
from slurm.jobs.rendezvous import rank_environment

_TAIL_LINES = 60
_CLOCK_SLACK_S = 30
_FIRST_DELAY_S, _LONGEST_DELAY_S = 30, 900
_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

REQUEUE_MARKER = "MSM_REQUEUE_MARKER"
"""The batch script's name for the file by which a rank asks for a requeue after so many seconds."""


def run_job(job_file: str) -> None:
    """Run the job of this file; end with its status when it fails."""
    status = Worker(read_job(Path(job_file))).run()
    if status:
        # A status above 128 says a signal to a shell, and so to srun.
        sys.exit(status if status > 0 else 128 - status)


def run_jobs(job_files: Sequence[str]) -> None:
    """Run jobs of one process one after the other, as one job of SLURM.

    All others need the first, so its failure ends them; another one's failure does not, and is the
    end's status. What asks for a new start ends them all, and jobs that are done pass quickly then.
    """
    status = 0
    for place, job_file in enumerate(job_files):
        worker = Worker(read_job(Path(job_file)))
        found = worker.run()
        status = status or found
        if found and (place == 0 or worker.was_signalled or found == PreemptedError.exit_status):
            break
    if status:
        sys.exit(status if status > 0 else 128 - status)


class Worker:
    """One task of one attempt of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        # Not SLURM_JOB_ID: local jobs started inside an allocation have it too.
        is_debug = "SUBMITIT_DEBUG_JOB_ID" in os.environ
        self.slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and not is_debug
        self.task = submitit.JobEnvironment()
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT", "0")) if self.slurm else 0
        self.started = time.time()
        self.was_signalled = False
        self.child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run the job's program to its end and record the outcome; return its status."""
        self._take_signals()
        refusal = self._refusal()
        if refusal is not None:
            return self._fail(1, refusal, [])
        try:
            variables = self._environment()
        except ConfigError as error:
            return self._fail(error.exit_status, Failure("configuration", str(error)), [])
        status, tail = self._run_child(variables)
        if status:
            failure = diagnose(status, tail, was_signalled=self.was_signalled)
            if failure.kind == "preempted" and self._is_near_time_limit():
                failure = Failure("time-limit", failure.reason)
            return self._fail(status, failure, tail)
        if self.task.global_rank == 0:
            self._record(0, None, [])
        return 0

    def _fail(self, status: int, failure: Failure, tail: list[str]) -> int:
        self._record(status, failure, tail)
        return status

    def _take_signals(self) -> None:
        # A debug job runs inside the client, whose signals are its own.
        if "SUBMITIT_FOLDER" in os.environ:
            for number in _SIGNALS:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.was_signalled = True
        # SLURM signals every process of a step, this one's child included.
        if not self.slurm and self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def _refusal(self) -> Failure | None:
        """Return why this attempt must not run."""
        if self.task.global_rank != 0:
            return None
        if self._counted_restarts() > self.job.requeue_limit:
            limit = self.job.requeue_limit
            return Failure("requeue-limit", f"started again more than {limit} times")
        return None

    def _run_child(self, variables: dict[str, str]) -> tuple[int, list[str]]:
        command = python_module(self.job.module, *self.job.arguments)
        self.child = subprocess.Popen(
            command,
            cwd=self.job.cwd,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.child.stdout is not None
        tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        reader = threading.Thread(target=_copy, args=(self.child.stdout, tail), daemon=True)
        reader.start()
        try:
            status = self.child.wait()
        except KeyboardInterrupt:
            # The terminal sent it to the child as well, which may have something to save.
            self.child.wait()
            reader.join(timeout=10)
            raise
        # A process that the child left behind may hold the pipe open for ever.
        reader.join(timeout=10)
        return status, [line.decode(errors="replace").rstrip() for line in list(tail)]

    def _environment(self) -> dict[str, str]:
        if self.job.num_ranks is None or not self.slurm:
            return {}
        variables = rank_environment(
            rank=self.task.global_rank,
            local_rank=self.task.local_rank,
            num_tasks=self.task.num_tasks,
            num_nodes=self.task.num_nodes,
            hosts=self.task.hostnames,
            job_id=int(self.task.raw_job_id),
        )
        # More threads than cores make a step several times slower (measured: 5x).
        cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", cores), **variables}

    def _is_near_time_limit(self) -> bool:
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        if end.isdigit():  # set by SLURM or by the batch script
            end_unix_s = float(end)
        elif self.job.time_min is not None:
            end_unix_s = self.started + self.job.time_min * 60
        else:
            return False
        return time.time() >= end_unix_s - self.job.signal_delay_s - _CLOCK_SLACK_S

    def _record(self, status: int, failure: Failure | None, tail: list[str]) -> None:
        restarts = failure is not None and failure.is_retried and self.slurm and self._may_restart()
        attempt = Attempt(
            job_id=self.task.job_id,
            restart=self.restart,
            rank=self.task.global_rank,
            host=socket.gethostname(),
            status=status,
            seconds=time.time() - self.started,
            kind=failure.kind if failure else None,
            reason=failure.reason if failure else "",
            will_restart=restarts,
            tail=tuple(tail),
        )
        recorded = record_attempt(self.job.folder, attempt)
        if recorded == attempt and failure is not None:
            sys.stderr.write(f"{failure.kind}: {failure.reason}\n{failure.remedy}\n")
        # Every rank says so: the first may be taken down by another's end before it does.
        if recorded.will_restart:
            doublings = 0 if recorded.kind == "time-limit" else self._counted_restarts()
            delay_s = min(_FIRST_DELAY_S * 2**doublings, _LONGEST_DELAY_S)
            Path(os.environ[REQUEUE_MARKER]).write_text(f"{delay_s}\n")

    def _may_restart(self) -> bool:
        return self._is_near_time_limit() or self._counted_restarts() < self.job.requeue_limit

    def _counted_restarts(self) -> int:
        """Return how often this job was started again for another reason than its time limit."""
        attempts = [a for a in read_attempts(self.job.folder) if a.job_id == self.task.job_id]
        earlier = [attempt for attempt in attempts if attempt.restart < self.restart]
        return self.restart - sum(attempt.kind == "time-limit" for attempt in earlier)


def _copy(source: IO[bytes], tail: "deque[bytes]") -> None:
    """Pass the child's output on to this task's log, and keep the last lines."""
    for line in source:
        tail.append(line)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
