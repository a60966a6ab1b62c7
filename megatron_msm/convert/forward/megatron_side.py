"""What Megatron's layers compute: the trainer's own model, on one CPU rank, in float32.

Runs in a process of its own, since megatron-core on a CPU changes torch for the whole process.
"""

import logging
import os
import re

import torch
from megatron.core.packed_seq_params import PackedSeqParams

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.convert.forward.model_slice import ModelSlice, TensorName, TensorReader
from megatron_msm.convert.megatron.writer import CONTENT_METADATA
from megatron_msm.models.build import build_model
from megatron_msm.runtime.device import select_runtime
from megatron_msm.runtime.extra_state import is_extra_state
from megatron_msm.runtime.process_groups import RankInfo, initialize, shut_down

_EXPERT = re.compile(r"\.local_experts\.(\d+)\.")


def megatron_logits(
    part: ModelSlice, reader: TensorReader, prompts: list[list[int]]
) -> list[torch.Tensor]:
    """Compute the logits of prompts.

    Args:
        part: Which layers and words.
        reader: Where their tensors are.
        prompts: Numbers of words in `part.tokens`.

    Returns:
        One float32 tensor (tokens, words of the part) a prompt.
    """
    logging.disable(logging.WARNING)
    os.environ["MASTER_PORT"] = "0"  # one rank needs no port that others know
    runtime = select_runtime(RuntimeConfig(device="cpu", dtype="fp32"), local_rank=0)
    parallel = ParallelConfig()
    ranks = initialize(RankInfo(0, 0, 1), runtime, parallel, seed=1, timeout_min=2)
    (model,) = build_model(part.shape, parallel, runtime, ranks)
    with torch.no_grad():
        _load(model, part.read(reader))
        found = [_forward(model, prompt)[:, : len(part.tokens)].clone() for prompt in prompts]
    shut_down()
    return found


def _load(model: torch.nn.Module, tensors: dict[TensorName, torch.Tensor]) -> None:
    """Put every tensor into its place, by megatron-core's own naming of checkpoints."""
    state = model.state_dict()
    sharded = model.sharded_state_dict(metadata=dict(CONTENT_METADATA))  # type: ignore[operator]
    for name, target in state.items():
        if is_extra_state(name):
            continue
        expert = _EXPERT.search(name)
        content = tensors.pop((sharded[name].key, None if expert is None else int(expert[1])))
        target[: len(content)].copy_(content)
        target[len(content) :] = 0.0
    assert not tensors, tensors.keys()


def _forward(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    length = len(prompt)
    boundaries = torch.tensor([0, length], dtype=torch.int32)
    logits_BSV = model(
        torch.tensor([prompt]),
        torch.arange(length)[None],
        None,
        packed_seq_params=PackedSeqParams(
            qkv_format="thd",
            cu_seqlens_q=boundaries,
            cu_seqlens_kv=boundaries,
            max_seqlen_q=length,
            max_seqlen_kv=length,
        ),
    )
    logits_SV: torch.Tensor = logits_BSV.reshape(length, -1)
    return logits_SV
