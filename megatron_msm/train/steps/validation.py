"""Loss on held-out datasets with the current weights. It leaves no trace in the training."""

from collections.abc import Callable, Sequence

import torch

from megatron_msm.data.blend import Blend
from megatron_msm.data.held_out import HeldOut
from megatron_msm.formats.metrics_file import VALIDATION


def validate(
    held_out: Sequence[HeldOut],
    chunks: Sequence[torch.nn.Module],
    loss_of_batch: Callable[[Blend, int], tuple[float, float]],
    must_stop: Callable[[], bool],
) -> dict[str, float] | None:
    """Return the mean loss of each dataset; None when the run is told to stop meanwhile.

    Args:
        held_out: The datasets.
        chunks: The model, which is out of training mode in between.
        loss_of_batch: Sum of the losses of a global batch, and their number.
        must_stop: Asked between batches, by all ranks alike.
    """
    for chunk in chunks:
        chunk.eval()
    means: dict[str, float] = {}
    try:
        for data in held_out:
            total = count = 0.0
            for step in range(data.num_batches):
                if must_stop():
                    return None
                loss, number = loss_of_batch(data.blend, step)
                total, count = total + loss, count + number
            means[f"{VALIDATION}{data.name}_nats"] = total / max(count, 1.0)
    finally:
        for chunk in chunks:
            chunk.train()
    return means
