"""Qwen2 and Qwen2.5, dense: query, key and value projections have a bias."""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.families.decoder import (
    ATTENTION,
    GATED_MLP,
    QKV_BIAS,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable

QWEN2 = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *QKV_BIAS, *GATED_MLP),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    shape={"qkv_bias": True},
)
