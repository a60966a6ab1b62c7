"""Llama 2 and 3.x, SmolLM, and others that declare themselves `llama`."""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.families.decoder import (
    ATTENTION,
    GATED_MLP,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable

LLAMA = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *GATED_MLP),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    must_be={"attention_bias": False, "mlp_bias": False},
)
