"""torch.distributed and megatron-core's process groups, set up and taken down."""

import datetime
import os
from dataclasses import dataclass

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.process_groups_config import ProcessGroupCollection

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.errors import ConfigError
from megatron_msm.runtime import adam, cpu_redirects
from megatron_msm.runtime.device import Runtime, claim_gpu
from megatron_msm.runtime.store import store_of_start

_LAUNCHER = "A launcher such as torchrun sets it; unset it where none is used."


@dataclass(frozen=True)
class RankInfo:
    """This process among all ranks, as the launcher's environment gives it."""

    rank: int
    local_rank: int
    world_size: int


def rank_info_from_environment() -> RankInfo:
    """Read RANK, LOCAL_RANK and WORLD_SIZE (torchrun's names); one rank when they are absent.

    Raises:
        ConfigError: One of them is no number, or the rank is none of so many.
    """
    info = RankInfo(
        rank=_number("RANK", default=0),
        local_rank=_number("LOCAL_RANK", default=0),
        world_size=_number("WORLD_SIZE", default=1),
    )
    if info.rank >= info.world_size:
        raise ConfigError(
            f"environment: RANK is {info.rank} and WORLD_SIZE {info.world_size}. {_LAUNCHER}"
        )
    return info


def _number(name: str, *, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ConfigError(f"environment: {name} is {value!r}, and a number is needed. {_LAUNCHER}")
    return int(value)


@dataclass(frozen=True)
class ParallelRanks:
    """Where this rank sits in each parallel dimension, and megatron-core's groups."""

    rank: int
    world_size: int
    data_rank: int
    data_size: int
    context_rank: int
    context_size: int
    is_first_stage: bool
    """This pipeline rank has the embedding, in its first model chunk."""
    is_last_stage: bool
    """This pipeline rank has the logits and the loss, in its last model chunk."""
    groups: ProcessGroupCollection


def initialize(
    info: RankInfo, runtime: Runtime, parallel: ParallelConfig, *, seed: int, timeout_min: float
) -> ParallelRanks:
    """Join the process group, build megatron-core's groups and seed the random states.

    Raises:
        ConfigError: The number of ranks is not the product of the parallel sizes, or two ranks have
            one GPU.
    """
    if info.world_size != parallel.world_size:
        raise ConfigError(
            f"parallel: {parallel.summary}, but {info.world_size} were started. "
            "Start as many, or change parallel.*."
        )
    if runtime.is_cuda:
        torch.cuda.set_device(runtime.device)
    else:
        cpu_redirects.install()
    adam.choose_adam(is_cuda=runtime.is_cuda)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29531")
    timeout = datetime.timedelta(minutes=timeout_min)
    torch.distributed.init_process_group(
        backend=runtime.backend,
        store=store_of_start(timeout),
        rank=info.rank,
        world_size=info.world_size,
        timeout=timeout,
    )
    if runtime.is_cuda and torch.cuda.device_count() == 1 and info.world_size > 1:
        claim_gpu(runtime.device)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=(
            parallel.virtual_pipeline if parallel.virtual_pipeline > 1 else None
        ),
        context_parallel_size=parallel.context,
        expert_model_parallel_size=parallel.expert,
        # Experts are whole on a rank: those of today's models are too narrow to be split.
        expert_tensor_parallel_size=1,
        create_gloo_process_groups=False,
    )
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    return ParallelRanks(
        rank=info.rank,
        world_size=info.world_size,
        data_rank=parallel_state.get_data_parallel_rank(),
        data_size=parallel_state.get_data_parallel_world_size(),
        context_rank=parallel_state.get_context_parallel_rank(),
        context_size=parallel_state.get_context_parallel_world_size(),
        is_first_stage=parallel_state.is_pipeline_first_stage(),
        is_last_stage=parallel_state.is_pipeline_last_stage(),
        groups=ProcessGroupCollection.use_mpu_process_groups(),
    )


def shut_down() -> None:
    """Take down megatron-core's groups and the process group."""
    parallel_state.destroy_model_parallel()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
