"""Every strategy: each position once, nothing over capacity, the same plan every time."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_msm.config.data import PackingConfig
from megatron_msm.data.packing.index import PackingIndex, aligned, positions_of
from megatron_msm.data.packing.strategies import pack_documents
from megatron_msm.errors import ConfigError

STRATEGIES = ("best-fit", "first-fit-shuffle", "concatenate")
Lengths = npt.NDArray[np.int64]


def lognormal(num: int, capacity: int) -> Lengths:
    generator = np.random.default_rng(0)
    return np.clip(generator.lognormal(np.log(598) - 0.5, 1.0, num), 2, capacity).astype(np.int64)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Lengths, int, PackingConfig]:
    align = draw(st.sampled_from([1, 1, 2, 4, 8]))
    capacity = align * draw(st.integers(1, 40))
    lengths = draw(st.lists(st.integers(0, 3 * capacity), max_size=60))
    packing = PackingConfig(
        strategy=draw(st.sampled_from(STRATEGIES)),
        max_documents=draw(st.none() | st.integers(1, 8)),
        align=align,
        seed=draw(st.integers(0, 3)),
    )
    return np.array(lengths, np.int64), capacity, packing


def covered(plan: PackingIndex) -> list[tuple[int, int]]:
    """Return every (document, position) of a plan."""
    segments = plan.segments
    return [
        (int(document), int(position))
        for document, start, length in zip(
            segments.document, segments.start, segments.length, strict=True
        )
        for position in range(start, start + length)
    ]


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_position_once_and_no_sequence_over_capacity(
    case: tuple[Lengths, int, PackingConfig],
) -> None:
    lengths, capacity, packing = case
    plan = pack_documents(lengths, capacity, packing)
    wanted = [
        (document, position)
        for document, count in enumerate(positions_of(lengths))
        for position in range(count)
    ]
    assert sorted(covered(plan)) == wanted
    sizes = aligned(plan.segments.length, packing.align)
    for index in range(len(plan)):
        here = plan.segments_of(index)
        assert 0 < sizes[here].sum() <= capacity
        assert len(sizes[here]) <= (packing.max_documents or capacity)
    again = pack_documents(lengths, capacity, packing)
    assert np.array_equal(plan.offsets, again.offsets)
    assert covered(plan) == covered(again)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_a_document_that_fits_is_never_split(case: tuple[Lengths, int, PackingConfig]) -> None:
    lengths, capacity, packing = case
    if packing.strategy == "concatenate":
        return
    plan = pack_documents(lengths, capacity, packing)
    pieces = np.bincount(plan.segments.document, minlength=len(lengths))
    positions = positions_of(lengths)
    assert np.array_equal(pieces, -(-positions // capacity))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_seed_is_another_plan_as_full(strategy: str) -> None:
    lengths = lognormal(5_000, 2048)
    plans = [
        pack_documents(
            lengths, 2048, PackingConfig.model_validate({"strategy": strategy, "seed": n})
        )
        for n in (0, 1)
    ]
    assert not np.array_equal(plans[0].segments.document, plans[1].segments.document)
    assert abs(len(plans[0]) - len(plans[1])) <= 3


def test_fill_of_a_million_documents() -> None:
    lengths = lognormal(1_000_000, 8192)
    plan = pack_documents(lengths, 8192)
    assert plan.fill > 0.9999
    assert len(plan) <= -(-int(positions_of(lengths).sum()) // 8192) * 1.0001


def test_a_cap_on_documents_costs_little_when_it_is_above_the_mean() -> None:
    lengths = lognormal(20_000, 8192)
    plan = pack_documents(lengths, 8192, PackingConfig(max_documents=32))
    assert plan.most_documents <= 32
    assert plan.fill > 0.995


def test_best_fit_is_optimal_where_it_is_known_to_be() -> None:
    lengths = np.array([7, 5, 3, 6, 4, 2]) + 1  # 9 + ... in three sequences of 9
    plan = pack_documents(lengths, 9)
    assert len(plan) == 3
    assert plan.fill == 1.0


def test_alignment_has_a_price_that_is_told() -> None:
    plan = pack_documents(np.array([6, 10, 2]), 16, PackingConfig(align=8))
    # 5, 9 and 1 positions take 8, 16 and 8.
    assert len(plan) == 2
    assert plan.align_cost == (3 + 7 + 7) / 32
    assert plan.fill == 15 / 32


def test_an_alignment_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"align: 12 .* length 64.* length of 72"):
        pack_documents(np.array([5]), 64, PackingConfig(align=12))
