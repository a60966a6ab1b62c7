"""A phase's data: which sources, how much of each, and in which order.

    prefixes             each source once an epoch
    sources: epochs      so many passes an epoch (packed sequences, rounded up)
    sources: rows        so many rows an epoch: whole passes, then rows drawn by the seed
    sources: tokens      so many tokens an epoch, likewise
    sources: weight      shares of the packed sequences; in one epoch the source that is scarcest
                         for its weight is visited once

Nothing of a source is drawn twice before all of it was drawn: passes follow one another, also
across the epochs of the phase. With a duration in steps or tokens, shares and passes go on as long
as needed; counts of rows or tokens say how much there is, and more steps than that are refused.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megatron_msm.config.data import DataConfig, SourceConfig
from megatron_msm.config.optimization import DurationConfig
from megatron_msm.data.order import PackOrder, Visits, row_order
from megatron_msm.data.packed_dataset import PackedDataset
from megatron_msm.data.packing.packings import Packings
from megatron_msm.data.source import Source, draw_part, open_source
from megatron_msm.errors import ConfigError


@dataclass(frozen=True)
class Blend:
    """The data of one phase."""

    dataset: PackedDataset
    order: PackOrder
    num_steps: int


def build_blend(
    data: DataConfig,
    duration: DurationConfig,
    *,
    seq_length: int,
    global_batch_size: int,
    seed: int,
    packings: Packings | None = None,
) -> Blend:
    """Open a phase's sources and decide how often each packed sequence is visited.

    Args:
        data: The sources and how they are packed.
        duration: How long the phase is.
        seq_length: Positions of a packed sequence.
        global_batch_size: Packed sequences of a step.
        seed: Seed of the order.
        packings: Knows packings that were made already.

    Raises:
        ConfigError: The sources do not give enough for the steps that were asked for.
        DataFormatError: A dataset cannot be used.
    """
    packings = packings or Packings()
    sources = [
        open_source(config.prefix, seq_length=seq_length, packing=data.packing, packings=packings)
        for config in data.all_sources
    ]
    steps = duration.num_steps(global_batch_size * seq_length)
    wanted = None if steps is None else steps * global_batch_size
    epochs = duration.epochs or 1.0
    if any(config.rows or config.tokens for config in data.all_sources):
        drawn = [
            _draw(source, config, data, epochs, seed=seed, index=index, packings=packings)
            for index, (source, config) in enumerate(zip(sources, data.all_sources, strict=True))
        ]
        sources = [source for source, _ in drawn]
        visits = [visits for _, visits in drawn]
        _refuse_too_many(visits, wanted, global_batch_size)
    else:
        share = _packs_per_epoch(sources, data.all_sources)
        if wanted is None:
            counts = [_round_up(epochs * packs) for packs in share]
        else:
            counts = _apportion(wanted, share)
        visits = [
            Visits(len(source.packing_index), count)
            for source, count in zip(sources, counts, strict=True)
        ]
    if not any(visit.total for visit in visits):
        raise ConfigError(
            f"data.sources: {epochs:g} epochs of these amounts are no packed sequence at all. "
            "Raise the amounts, or duration.epochs."
        )
    order = PackOrder(visits, seed=seed, total=wanted)
    return Blend(PackedDataset(sources), order, -(-order.total // global_batch_size))


def _draw(
    source: Source,
    config: SourceConfig,
    data: DataConfig,
    epochs: float,
    *,
    seed: int,
    index: int,
    packings: Packings,
) -> tuple[Source, Visits]:
    """Return whole passes and a part that together are the amount asked for."""
    packs, order = (
        len(source.packing_index),
        row_order(len(source.lengths), seed=seed, source=index),
    )
    if config.epochs is not None:
        return source, Visits(packs, _round_up(config.epochs * epochs * packs))
    if config.rows is not None:
        passes, rest = divmod(round(config.rows * epochs), len(source.lengths))
        part = draw_part(source, order[:rest], tokens=None, packing=data.packing, packings=packings)
    else:
        assert config.tokens is not None, "counted sources have epochs, rows or tokens"
        in_all = int(source.lengths.sum(dtype=np.int64))
        passes, rest = divmod(round(config.tokens * epochs), in_all)
        order = order if rest else order[:0]
        part = draw_part(
            source, order, tokens=rest or None, packing=data.packing, packings=packings
        )
    num_part = len(part.packing_index)
    visits = Visits(packs, passes * packs + num_part, part_packs=num_part, num_passes=passes)
    return dataclasses.replace(source, part=part if num_part else None), visits


def _packs_per_epoch(sources: Sequence[Source], configs: Sequence[SourceConfig]) -> list[float]:
    """Return how many packed sequences of each source one epoch of the phase has."""
    sizes = [len(source.packing_index) for source in sources]
    weights = [config.weight for config in configs if config.weight is not None]
    if not weights:
        passes = [config.epochs or 1.0 for config in configs]
        return [size * times for size, times in zip(sizes, passes, strict=True)]
    unit = min(size / weight for size, weight in zip(sizes, weights, strict=True))
    return [unit * weight for weight in weights]


def _apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Divide `total` in proportion to the shares; the largest remainders get the rest."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _refuse_too_many(visits: Sequence[Visits], wanted: int | None, global_batch_size: int) -> None:
    available = sum(visit.total for visit in visits)
    if wanted is not None and wanted > available:
        raise ConfigError(
            f"duration: {wanted // global_batch_size} steps need {wanted} packed sequences, "
            f"but the rows and tokens of data.sources fill only {available}. Give duration.epochs "
            f"instead, at most {available // global_batch_size} steps, or a weight for each source."
        )


def _round_up(packs: float) -> int:
    """Round up, but not because of the last bits of a product."""
    return math.ceil(round(packs, 6))
