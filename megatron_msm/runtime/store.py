"""The key-value store that the ranks met at."""

import datetime
import os

from torch._C._distributed_c10d import PrefixStore, TCPStore


def connect_to_store() -> TCPStore:
    """Return a new connection to the key-value store that the ranks met at."""
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
    )


def store_of_start(timeout: datetime.timedelta) -> PrefixStore | None:
    """Return the part of torchrun's store that belongs to this start; None without torchrun.

    torch itself meets in the whole of it, where ranks that are started anew find the addresses of
    those that are gone (pytorch issue 135712).
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store = PrefixStore(key_of_start("ranks"), connect_to_store())
    store.set_timeout(timeout)
    return store


def key_of_start(name: str) -> str:
    """Return the key of something that the ranks say in this start.

    torchrun keeps its store when it starts the ranks anew (`--max-restarts`), and what was said
    before is not true any more.
    """
    return f"msm/start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}"
