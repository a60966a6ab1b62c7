"""Mistral, dense. Its sliding window bounds the length that is supported (`_exact_positions`)."""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.families.decoder import (
    ATTENTION,
    GATED_MLP,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable

MISTRAL = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *GATED_MLP),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
)
