"""How many weights a model trains, counted over its ranks."""

from collections.abc import Sequence

import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.layers import param_is_not_tensor_parallel_duplicate

from megatron_msm.config.lora import LoraConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.adapter_sizes import num_adapter_parameters
from megatron_msm.runtime.process_groups import ParallelRanks


def check_trainable(
    chunks: Sequence[GPTModel], shape: ModelShape, lora: LoraConfig | None, ranks: ParallelRanks
) -> None:
    """Assert that a model with adapters trains them, all of them, and nothing else.

    Called by every rank: the count is over all of them, with what tensor parallel ranks share
    counted once. A target that was left out, or a weight that was not frozen, would go unnoticed in
    the loss.
    """
    if lora is None:
        return
    mine = sum(
        parameter.numel()
        for chunk in chunks
        for parameter in chunk.parameters()
        if parameter.requires_grad
        and param_is_not_tensor_parallel_duplicate(parameter, ranks.groups.tp)
    )
    total = torch.tensor(mine, dtype=torch.int64, device=torch.cuda.current_device())
    torch.distributed.all_reduce(total, group=ranks.groups.mp)
    expected = num_adapter_parameters(shape, lora)
    assert int(total) == expected, f"{int(total):,} trainable parameters, expected {expected:,}"
