"""A run resolved once a node: checked and packed by one process, which hands it to the others.

    msm train            the launcher resolves, and its ranks read the packings that it wrote
    torchrun and SLURM   local rank 0 does; the others wait for it at the store where ranks met

Packing a large corpus takes time and several times its row lengths in memory, which eight ranks of
a node would each pay.
"""

import dataclasses
import datetime
import json
import os
import socket
from pathlib import Path

from torch import distributed

from megatron_msm.config.run import RunConfig
from megatron_msm.data.packing.packings import Packings
from megatron_msm.errors import MsmError
from megatron_msm.runtime.process_groups import RankInfo
from megatron_msm.runtime.store import connect_to_store, key_of_start
from megatron_msm.train.base import find_base, make_base
from megatron_msm.train.checkpoints.resume import next_phase
from megatron_msm.train.checks import checked_run
from megatron_msm.train.dataset_hashes import verify_datasets
from megatron_msm.train.ranks.shared_packings import PACKINGS_FOLDER, shared_packings
from megatron_msm.train.resolved_run import ResolvedRun, resolve_run
from megatron_msm.train.summary import tell


def resolve_on_node(config: RunConfig, info: RankInfo) -> ResolvedRun:
    """Return the run on every rank; called by all alike, when they have met.

    Raises:
        MsmError: The run cannot work; on every rank of the node with the same exit status.
    """
    if PACKINGS_FOLDER in os.environ:
        packings = Packings(Path(os.environ[PACKINGS_FOLDER]))
        return resolve_run(config, make_base(config), packings)
    if info.local_rank == 0:
        return _resolve_and_share(config, is_teller=info.rank == 0)
    folder = _wait_for_packings(config.runtime.timeout_min)
    run = resolve_run(config, find_base(config), Packings(folder))
    distributed.barrier()
    return run


def _resolve_and_share(config: RunConfig, *, is_teller: bool) -> ResolvedRun:
    packings = Packings()
    store = connect_to_store()
    try:
        run = checked_run(config, packings)
        run = dataclasses.replace(run, base=make_base(config))
        if is_teller:
            tell(run, next_phase(run))
            verify_datasets(run)
        config.out.mkdir(parents=True, exist_ok=True)
    except MsmError as error:
        store.set(_key(), json.dumps({"error": str(error), "exit_status": error.exit_status}))
        raise
    with shared_packings(config.out, packings) as folder:
        store.set(_key(), json.dumps({"folder": str(folder)}))
        distributed.barrier()
    return run


def _wait_for_packings(timeout_min: float) -> Path:
    store = connect_to_store()
    store.wait([_key()], datetime.timedelta(minutes=timeout_min))
    told = json.loads(store.get(_key()))
    if "error" in told:
        error = MsmError(told["error"])
        error.exit_status = told["exit_status"]
        raise error
    return Path(told["folder"])


def _key() -> str:
    return key_of_start(f"packings/{socket.gethostname()}")
