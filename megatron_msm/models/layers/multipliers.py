"""Embeddings that are multiplied, and logits that are divided, by a number of the model's."""

from typing import Any

import torch
from megatron.core.models.gpt.gpt_model import GPTModel


def multiply_embeddings(chunk: GPTModel, multiplier: float) -> None:
    """Multiply what the first chunk's embedding returns; the weight, which may be tied, stays."""
    chunk.embedding.register_forward_hook(lambda module, args, found: found * multiplier)


def divide_logits(chunk: GPTModel, divisor: float) -> None:
    """Divide the logits of the last chunk, before the loss.

    What goes into the output layer is divided, which is the same: so it holds for logits and for
    losses that are made without keeping them (output_loss.py), at a fraction of the work.
    """

    def divide(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_SBH, *others = args
        return (hidden_SBH / divisor, *others)

    chunk.output_layer.register_forward_pre_hook(divide)
