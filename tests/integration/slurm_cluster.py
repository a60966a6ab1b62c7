"""A real SLURM of several nodes on this machine, for the length of a test session.

Every node is a slurmd of its own (`slurmd -N NAME`) on one host. Node names do not resolve, as on
many clusters, so ranks must find each other by NodeAddr. There is no accounting database: what has
ended is asked of the controller. Needs root and Debian's slurm-wlm and munge.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NODES = ("msm-a", "msm-b", "msm-c")

_CONF = """\
ClusterName=msm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmctldParameters=preempt_send_user_signal
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
JobRequeue=1
MaxArraySize=4
KillWait=10
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Say what a cluster on this machine would need, or None when it has it."""
    programs = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if programs:
        return f"no SLURM here: {', '.join(programs)} not found (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "starting SLURM's daemons needs root"


class SlurmCluster:
    """The daemons, and SLURM's commands that talk to them."""

    def __init__(self, folder: Path, *, submit_plugin: str = "") -> None:
        """`submit_plugin` is Lua that the controller asks about every job that comes in."""
        self.folder = folder
        self._submit_plugin = submit_plugin
        self.conf = folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def up(self) -> None:
        """Start everything and wait until all nodes are idle."""
        for name in ("state", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self._start_munge()
        port = _free_ports(len(NODES) + 1)
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 "
            f"Port={port + 1 + i} CPUs=8 Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 "
            f"RealMemory=8000 State=UNKNOWN"
            for i, node in enumerate(NODES)
        )
        host = socket.gethostname()
        conf = _CONF.format(host=host, port=port, folder=self.folder, nodes=nodes)
        if self._submit_plugin:
            conf += "JobSubmitPlugins=lua\n"
            (self.folder / "job_submit.lua").write_text(self._submit_plugin)
        self.conf.write_text(conf)
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self.run("sinfo", "-h", "-t", "idle", "-p", "low", "-o%D") == "3", 90)

    def down(self) -> None:
        """Cancel what runs and stop the daemons."""
        subprocess.run(["scancel", "--me"], env=self.environment, check=False, timeout=120)
        wait_for(lambda: self.run("squeue", "-h") == "", 120)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(120)

    def wait_until_empty(self) -> None:
        """Wait until no job waits or runs."""
        wait_for(lambda: self.run("squeue", "-h") == "", 500)

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._start("slurmctld", "-D", "-f", str(self.conf))

    def stop_controller(self) -> None:
        """End slurmctld, as for a restart: jobs go on."""
        [daemon] = [
            d for d in self._daemons if isinstance(d.args, tuple) and d.args[0] == "slurmctld"
        ]
        daemon.terminate()
        daemon.wait(120)
        self._daemons.remove(daemon)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._start("slurmd", "-D", "-f", str(self.conf), "-N", node)

    def crash_node(self, node: str) -> None:
        """Kill a node's slurmd and everything that runs below it, as a power cut would."""
        [daemon] = [d for d in self._daemons if isinstance(d.args, tuple) and node in d.args]
        victims = [daemon.pid, *_steps_of(self.conf, node)]
        # Stopped first: a daemon that outlives its children would report how they ended.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        daemon.wait(120)
        self._daemons.remove(daemon)

    def run(self, *command: str) -> str:
        """Run a SLURM command and return what it prints."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def field(self, job_id: str, name: str) -> str:
        """Return one field of `scontrol show job`, such as JobState."""
        shown = self.run("scontrol", "show", "job", "--oneliner", job_id)
        return next(p for p in shown.split() if p.startswith(f"{name}=")).partition("=")[2]

    def wait_state(self, job_id: str, *states: str, seconds: float = 300) -> str:
        """Wait until the job is in one of these states and return it."""
        wait_for(lambda: self.field(job_id, "JobState") in states, seconds)
        return self.field(job_id, "JobState")

    def wait_restart(self, job_id: str, restarts: int = 1) -> None:
        """Wait until the job runs after so many restarts, without the delay before each."""

        def is_held() -> bool:
            state = self.field(job_id, "JobState")
            return self.field(job_id, "Restarts") == str(restarts) and state == "PENDING"

        def runs_again() -> bool:
            # SLURM holds a requeued job for two minutes, our batch script for less.
            update = ["scontrol", "update", f"jobid={job_id}", "starttime=now"]
            subprocess.run(update, env=self.environment, check=False, capture_output=True)
            return self.field(job_id, "JobState") == "RUNNING"

        wait_for(is_held, 300)
        time.sleep(2)  # a start in the same second finds its credential revoked
        wait_for(runs_again, 300)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        self._start(
            *("munged", "-F", "--force", f"--key-file={key}"),
            f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munge.pid",
            f"--log-file={self.folder}/munge.log",
            f"--seed-file={self.folder}/munge.seed",
        )
        wait_for((self.folder / "munge.socket").exists, 60)

    def _start(self, *command: str) -> None:
        log = (self.folder / "daemons.log").open("ab")
        daemon = subprocess.Popen(
            command, env=self.environment, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self._daemons.append(daemon)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def _steps_of(conf: Path, node: str) -> list[int]:
    """Return a node's job steps, daemons before tasks; they are no children of its slurmd."""
    tasks = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        names = {f"SLURM_CONF={conf}".encode(), f"SLURMD_NODENAME={node}".encode()}
        if names <= set(environment):
            tasks.append(int(process.name))
    daemons = {parent for task in tasks for parent in _parents(task) if _is_step_daemon(parent)}
    return [*daemons, *tasks]


def _parents(pid: int) -> list[int]:
    status = Path(f"/proc/{pid}/status").read_text()
    parent = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
    return [] if parent <= 1 else [parent, *_parents(parent)]


def _is_step_daemon(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"slurmstepd")


def _free_ports(count: int) -> int:
    """Return the first of `count` consecutive free ports; another process begins elsewhere."""
    places = range(16_000, 19_000, 50)
    for place in range(len(places)):
        first = places[(os.getpid() + place) % len(places)]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@contextlib.contextmanager
def running_cluster(folder: Path, *, submit_plugin: str = "") -> Iterator[SlurmCluster]:
    """Yield a cluster that SLURM's commands find, or skip with the reason."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        cluster = SlurmCluster(folder, submit_plugin=submit_plugin)
        try:
            cluster.up()
            patch.setenv("SLURM_CONF", str(cluster.conf))
            yield cluster
        finally:
            cluster.down()
