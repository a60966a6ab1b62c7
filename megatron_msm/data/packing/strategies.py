"""Documents into packed sequences, by the strategy that `data.packing` names.

| strategy | cuts documents | fill | what it is for |
|---|---|---|---|
| best-fit | only those longer than a sequence | about 99.99% | the default |
| first-fit-shuffle | only those longer than a sequence | about 99.9% | random mixtures of lengths |
| concatenate | wherever a sequence ends | 100% | what Megatron's pretraining does |

A packing is a function of the lengths, the sequence length and the packing settings alone.

With a cap on documents, best-fit decreasing ends with sequences of too many short ones (94% full at
a cap of twice the mean, measured on a million lognormal lengths), where first-fit over a random
order stays at 99.9%; so both are tried and the shorter packing is kept.
"""

import numpy as np
import numpy.typing as npt

from megatron_msm.config.data import PackingConfig
from megatron_msm.data.packing.best_fit import best_fit_decreasing
from megatron_msm.data.packing.concatenate import concatenate
from megatron_msm.data.packing.first_fit import first_fit
from megatron_msm.data.packing.index import (
    Int64Array,
    PackingIndex,
    aligned,
    group_by_bin,
    positions_of,
    split_documents,
)
from megatron_msm.errors import ConfigError


def pack_documents(
    lengths: npt.NDArray[np.integer], capacity: int, packing: PackingConfig | None = None
) -> PackingIndex:
    """Pack into sequences of `capacity` positions for documents of `lengths` tokens.

    Raises:
        ConfigError: The sequence length is not a multiple of the alignment.
    """
    packing = packing or PackingConfig()
    if capacity % packing.align:
        raise ConfigError(
            f"data.packing.align: {packing.align} does not divide the sequence length {capacity}, "
            f"so no document could end there. Use a sequence length of "
            f"{-(-capacity // packing.align) * packing.align}, or another alignment."
        )
    random = np.random.Generator(np.random.Philox(packing.seed))
    if packing.strategy == "concatenate":
        segments, offsets = concatenate(
            positions_of(lengths),
            capacity,
            align=packing.align,
            max_documents=packing.max_documents,
            order=random.permutation(len(lengths)),
        )
        return PackingIndex(segments, offsets, capacity, packing.align)
    segments = split_documents(lengths, capacity)
    sizes = aligned(segments.length, packing.align) // packing.align
    order, bins = _place(
        sizes, capacity // packing.align, packing, random.permutation(len(segments))
    )
    return PackingIndex(*group_by_bin(segments, order, bins), capacity, packing.align)


def _place(
    sizes: Int64Array, capacity: int, packing: PackingConfig, shuffled: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return an order of the items and the bin of each in that order."""
    limit = packing.max_documents
    best = (
        best_fit_decreasing(sizes, capacity, max_documents=limit, order=shuffled)
        if packing.strategy == "best-fit"
        else None
    )
    if best is not None and limit is None:
        return best
    first = shuffled, first_fit(sizes[shuffled], capacity, max_documents=limit)
    if best is not None and best[1].max(initial=0) <= first[1].max(initial=0):
        return best
    return first
