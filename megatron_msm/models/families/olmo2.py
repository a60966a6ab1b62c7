"""OLMo 2: norms after attention and MLP, none before; norms of queries and keys over all heads.

Source: transformers 5.24, modeling_olmo2.py.
"""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.families.biases import attention_biases
from megatron_msm.models.families.decoder import (
    ATTENTION_ALONE,
    ATTENTION_BIASES,
    GATED_MLP_ALONE,
    NORMS_AFTER,
    QK_NORM_OVER_HEADS,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable

OLMO2 = Architecture(
    table=ModelTable(
        rules=decoder_rules(
            *ATTENTION_ALONE, *ATTENTION_BIASES, *QK_NORM_OVER_HEADS, *GATED_MLP_ALONE, *NORMS_AFTER
        ),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="Olmo2ForCausalLM",
    defaults={
        "vocab_size": 50304,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
    },
    # The class has no such field, and takes one that is given as it is.
    never_null=frozenset({"head_dim"}),
    more_shape=attention_biases,
    shape={"qk_norm_over_heads": True, "norms_before": False, "norms_after": True},
)
