"""What megatron-core leaves undone about a mixture of experts, done after a model is built."""

import torch


def mark_as_split(model: torch.nn.Module) -> None:
    """Mark expert weights as split over tensor parallel ranks, each of which has its own experts.

    The gradient norm counts an unmarked weight on tensor parallel rank 0 only, and clips by a norm
    without the other ranks' experts. megatron-core's own layers set the mark, Transformer Engine's
    grouped ones do not.

    Source: megatron-core 0.16.1, tensor_parallel/layers.py:89 and optimizer.py:156; Megatron-LM's
    issue 5916. From 0.19 on experts are counted in a group of their own, with or without the mark.
    """
    for parameter in model.parameters():
        if not getattr(parameter, "allreduce", True):
            parameter.tensor_model_parallel = True  # type: ignore[attr-defined]


def move_to(model: torch.nn.Module, device: torch.device) -> None:
    """Move the weights that were made elsewhere: megatron-core makes routers on the CPU.

    A trained router moves with its gradient buffer, a frozen one would stay (router.py:53).
    """
    for parameter in model.parameters():
        if parameter.device.type != device.type:
            parameter.data = parameter.data.to(device)
