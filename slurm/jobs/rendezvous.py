"""torch.distributed's variables from SLURM's: which rank a task is, and where rank 0 listens."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence

_FIRST_PORT, _NUM_PORTS = 20_000, 12_000  # below Linux's ephemeral ports


def rank_environment(
    *, rank: int, local_rank: int, num_tasks: int, num_nodes: int, hosts: Sequence[str], job_id: int
) -> dict[str, str]:
    """Return RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for one task.

    The port follows from the job and how often it was started: two jobs that share a node, and a
    restart whose old port is not free yet, do not meet.
    """
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(num_tasks),
        "LOCAL_WORLD_SIZE": str(num_tasks // num_nodes),
        "MASTER_ADDR": reachable_address(hosts[0], os.environ),
        "MASTER_PORT": str(_FIRST_PORT + (job_id * 7 + restart * 1009) % _NUM_PORTS),
    }


def reachable_address(host: str, environment: Mapping[str, str]) -> str:
    """Return the host's name if it resolves, else the address that SLURM knows it by.

    Node names need not be known to the resolver; c10d then waits until its timeout.
    """
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        # The launch node is the job's first node; inside a container there is no scontrol.
        return _node_address(host) or environment.get("SLURM_LAUNCH_NODE_IPADDR", host)
    return host


def _node_address(host: str) -> str | None:
    if shutil.which("scontrol") is None:
        return None
    shown = subprocess.run(
        ["scontrol", "show", "node", "-o", host],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found = re.search(r"\bNodeAddr=(\S+)", shown.stdout)
    return found.group(1) if found else None
