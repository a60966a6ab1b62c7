"""SmolLM3: Llama with layers whose queries and keys are not rotated, every fourth by default.

Source: transformers 5.24, configuration_smollm3.py and modeling_smollm3.py.
"""

from collections.abc import Mapping

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.config_fields import ConfigFields
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
from megatron_msm.models.families.window_layers import FULL
from megatron_msm.models.tensor_table import ModelTable


def _no_rope_layers(fields: ConfigFields) -> tuple[int, ...]:
    """Read which layers are not rotated: those with a 0 in `no_rope_layers`."""
    num_layers = fields.count("num_hidden_layers")
    interval = fields.count("no_rope_layer_interval")
    rotated = fields.take("no_rope_layers")
    if rotated is None:
        rotated = [int(layer % interval != 0) for layer in range(1, num_layers + 1)]
    if (
        not isinstance(rotated, list)
        or len(rotated) != num_layers
        or not all(type(one) is int and one in (0, 1) for one in rotated)
    ):
        needed = f"0 or 1 for each of {num_layers} layers is needed; 0 is not rotated"
        raise fields.refusal("no_rope_layers", rotated, needed)
    return tuple(layer for layer, one in enumerate(rotated) if one == 0)


def _more(fields: ConfigFields) -> Mapping[str, object]:
    types = fields.take("layer_types")
    if types is not None and types != [FULL] * fields.count("num_hidden_layers"):
        raise fields.refusal("layer_types", types, f"only {FULL} for each layer is supported")
    return {**biases(fields), "no_rope_layers": _no_rope_layers(fields)}


SMOLLM3 = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *ATTENTION_BIASES, *GATED_MLP, *MLP_BIASES),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    class_name="SmolLM3ForCausalLM",
    defaults={
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 2e6,
        "tie_word_embeddings": True,
        "no_rope_layer_interval": 4,
        **BIAS_DEFAULTS,
    },
    # The class has no such field, and takes one that is given as it is.
    never_null=frozenset({"head_dim"}),
    only={"use_sliding_window": (False,)},
    more_shape=_more,
)
