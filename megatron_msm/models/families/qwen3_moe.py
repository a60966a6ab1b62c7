"""Qwen3-MoE: Qwen3's attention, and experts in the place of every layer's MLP.

Layers without experts (`mlp_only_layers`, `decoder_sparse_step`) are refused: no published model
has them, and every layer would need rules of its own.
"""

from collections.abc import Mapping
from typing import Any

from megatron_msm.models.architecture import Architecture, Config
from megatron_msm.models.families.decoder import (
    ATTENTION,
    EXPERTS,
    QK_NORM,
    ROTARY_BUFFERS,
    TIED_COPIES,
    decoder_rules,
)
from megatron_msm.models.tensor_table import ModelTable


def _experts(config: Config) -> Mapping[str, Any]:
    return {
        "experts": {
            # transformers 5 writes the new name, the published configs have the old one.
            "num_experts": config.get("num_local_experts") or config["num_experts"],
            "experts_per_token": config["num_experts_per_tok"],
            "ffn_hidden_size": config["moe_intermediate_size"],
            "normalize_weights": config.get("norm_topk_prob", False),
        }
    }


QWEN3_MOE = Architecture(
    table=ModelTable(
        rules=decoder_rules(*ATTENTION, *QK_NORM, *EXPERTS),
        tied_copies=TIED_COPIES,
        computed_buffers=ROTARY_BUFFERS,
    ),
    must_be={"attention_bias": False, "mlp_only_layers": [], "decoder_sparse_step": 1},
    shape={"qk_norm": True},
    more_shape=_experts,
)
