"""RMSNorm for ranks on the CPU, sequence parallelism included."""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import rms_norm


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm with the constructor that megatron-core's layer specs call.

    megatron-core's own wrapper refuses sequence parallelism (transformer/torch_norm.py:32), where
    each tensor parallel rank normalises its share of the positions and so has a part of the
    weight's gradient. The mark on the weight makes `finalize_model_grads` add the parts up.

    Where the configuration has `layernorm_zero_centered_gamma` it multiplies by 1 + weight, in
    float32 as Transformer Engine's kernel does and transformers' Gemma3RMSNorm.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float) -> None:
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        self._adds_one = config.layernorm_zero_centered_gamma

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x normalised over its last dimension, in its dtype."""
        if not self._adds_one:
            return super().forward(x)
        weight = 1.0 + self.weight.float()
        return rms_norm(x.float(), self.normalized_shape, weight, self.eps).type_as(x)
