"""Datasets that a phase measures its loss on and never trains on."""

from pathlib import Path
from typing import NamedTuple

from megatron_msm.config.data import DataConfig
from megatron_msm.config.optimization import DurationConfig
from megatron_msm.config.run import PhaseConfig
from megatron_msm.data.blend import Blend, build_blend
from megatron_msm.data.packing.packings import Packings


class HeldOut(NamedTuple):
    """A held-out dataset, packed as the phase's own data is."""

    name: str
    """The metric is called `validation/NAME_nats`."""
    prefix: Path
    blend: Blend
    num_batches: int
    """Global batches of a validation."""


def held_out_data(phase: PhaseConfig, packings: Packings) -> tuple[HeldOut, ...]:
    """Open the phase's validation datasets, packed as their like among `packings`.

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
            packings=packings,
        )
        shown = name if names.count(name) == 1 else str(prefix).replace("/", ".")
        num_batches = min(blend.num_steps, config.max_batches or blend.num_steps)
        found.append(HeldOut(shown, prefix, blend, num_batches))
    return tuple(found)
