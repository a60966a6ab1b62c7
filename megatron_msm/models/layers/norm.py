"""RMSNorm for ranks on the CPU, sequence parallelism included."""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm with the constructor that megatron-core's layer specs call.

    megatron-core's own wrapper refuses sequence parallelism (transformer/torch_norm.py:32), where
    each tensor parallel rank normalises its share of the positions and so has a part of the
    weight's gradient. The mark on the weight makes `finalize_model_grads` add the parts up.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float) -> None:
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
