"""Loss on held-out datasets with the current weights. It leaves no trace in the training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from megatron_msm.config.data import DataConfig
from megatron_msm.config.optimization import DurationConfig
from megatron_msm.config.run import PhaseConfig
from megatron_msm.data.blend import Blend, build_blend
from megatron_msm.train.reporting.metrics import VALIDATION


class HeldOut(NamedTuple):
    """A held-out dataset, packed as the phase's own data is."""

    name: str
    """Of the metric: `validation/NAME_nats`."""
    prefix: Path
    blend: Blend
    num_batches: int
    """Global batches of a validation."""


def held_out_data(phase: PhaseConfig) -> tuple[HeldOut, ...]:
    """Open the phase's validation datasets.

    Raises:
        DataFormatError: A dataset cannot be used.
    """
    config = phase.validation
    if config is None:
        return ()
    names = [prefix.name for prefix in config.prefixes]
    found = []
    for prefix, name in zip(config.prefixes, names, strict=True):
        blend = build_blend(
            DataConfig(prefixes=(prefix,), packing=phase.data.packing),
            DurationConfig(epochs=1.0),
            seq_length=phase.seq_length,
            global_batch_size=phase.global_batch_size,
            seed=0,
        )
        shown = name if names.count(name) == 1 else str(prefix).replace("/", ".")
        num_batches = min(blend.num_steps, config.max_batches or blend.num_steps)
        found.append(HeldOut(shown, prefix, blend, num_batches))
    return tuple(found)


def validate(
    held_out: Sequence[HeldOut],
    chunks: Sequence[Any],
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
