"""Biases of some linear layers, where megatron-core has one switch for all (`add_bias_linear`)."""

import torch


class _WithBias(torch.nn.Module):
    """Mixin: put before a parallel linear class, it has a bias whatever its block asks for."""

    def __init__(self, *sizes: int, bias: bool, **settings: object) -> None:
        super().__init__(*sizes, bias=True, **settings)


def with_bias(linear: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """Return the class of a linear layer with a bias, for a layer spec."""
    return type(f"{linear.__name__}WithBias", (_WithBias, linear), {})
