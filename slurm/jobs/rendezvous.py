"""torch.distributed's variables from SLURM's: which rank a task is, and where rank 0 listens."""

import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Collection, Mapping, Sequence

from megatron_msm.errors import ConfigError

HOST_SUFFIX = "MSM_HOST_SUFFIX"
"""The batch script's name for what a site adds to the names of nodes."""
_FIRST_PORT, _NUM_PORTS = 20_000, 12_000  # below Linux's ephemeral ports
_SIOCGIFADDR = 0x8915  # linux/sockios.h: an interface's IPv4 address


def rank_environment(
    *,
    rank: int,
    local_rank: int,
    num_tasks: int,
    num_nodes: int,
    hosts: Sequence[str],
    job_id: int,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Return RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for one task.

    An address or port that the site has set in `environment` stays. Our port follows from the job
    and how often it was started: two jobs that share a node, and a restart whose old port is not
    free yet, do not meet.

    Raises:
        ConfigError: The interface that the site names is not on this node.
    """
    restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
    port = _FIRST_PORT + (job_id * 7 + restart * 1009) % _NUM_PORTS
    address = environment.get("MASTER_ADDR") or _address(hosts[0], environment)
    found = {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(num_tasks),
        "LOCAL_WORLD_SIZE": str(num_tasks // num_nodes),
        "MASTER_ADDR": address,
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }
    wanted = environment.get("NCCL_SOCKET_IFNAME")
    if wanted and "GLOO_SOCKET_IFNAME" not in environment:
        names = [name for _, name in socket.if_nameindex()]
        found["GLOO_SOCKET_IFNAME"] = first_interface(wanted, names)
    return found


def first_interface(wanted: str, names: Collection[str]) -> str:
    """Return the first interface that NCCL's pattern admits; gloo takes only whole names.

    Args:
        wanted: `ib0` or `ib` (beginnings), `=ib0` (exact), `^lo,docker` (all but these).
        names: The node's interfaces.

    Raises:
        ConfigError: It admits none that has an address.

    Source:
        NCCL's documentation of NCCL_SOCKET_IFNAME.
    """
    is_without, is_exact = wanted.startswith("^"), wanted.lstrip("^").startswith("=")
    parts = wanted.lstrip("^").removeprefix("=").split(",")

    def matches(name: str) -> bool:
        return any(name == part if is_exact else name.startswith(part) for part in parts)

    admitted = [name for name in names if matches(name) is not is_without]
    # As NCCL does: the loopback only where it is asked for or nothing else is there.
    admitted.sort(key=lambda name: name == "lo")
    for name in admitted:
        if _has_address(name):
            return name
    raise ConfigError(
        f"interface {wanted!r}: {socket.gethostname()} has {', '.join(names) or 'none'}"
        f"{', and none of them with an address is meant' if admitted else ''}. Correct `interface` "
        "in the site file, or leave it out."
    )


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


def _address(host: str, environment: Mapping[str, str]) -> str:
    suffix = environment.get(HOST_SUFFIX)
    return host + suffix if suffix else reachable_address(host, environment)


def _has_address(name: str) -> bool:
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError:
            return False
    return True


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
