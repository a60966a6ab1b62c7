"""Qwen3, dense: queries and keys are normalised in each head; heads have a size of their own."""

from collections.abc import Mapping
from typing import Any

from megatron_msm.models.architecture import Architecture, Config
from megatron_msm.models.families.decoder import (
    ATTENTION,
    GATED_MLP,
    QK_NORM,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable


def _head_size(config: Config) -> Mapping[str, Any]:
    return {"head_dim": config.get("head_dim") or 128}  # transformers' default, not a quotient


QWEN3 = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *QK_NORM, *GATED_MLP),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    must_be={"attention_bias": False},
    shape={"qk_norm": True},
    more_shape=_head_size,
)
