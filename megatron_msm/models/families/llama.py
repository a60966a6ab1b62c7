"""Llama 2 and 3.x, SmolLM, and others that declare themselves `llama`."""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.families.biases import BIAS_DEFAULTS, biases
from megatron_msm.models.families.decoder import (
    ATTENTION,
    ATTENTION_BIASES,
    GATED_MLP,
    MLP_BIASES,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable

LLAMA = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *ATTENTION_BIASES, *GATED_MLP, *MLP_BIASES),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="LlamaForCausalLM",
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        **BIAS_DEFAULTS,
    },
    more_shape=biases,
)
