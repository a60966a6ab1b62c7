"""The order of visits: nothing twice before all was seen once, and no state."""

import itertools
import time

import numpy as np
import pytest

from megatron_msm.data.interleaving import Interleaving
from megatron_msm.data.order import PackOrder, Visits
from megatron_msm.data.random_streams import VISITS, random_stream

TWO = [Visits(7, 30), Visits(5, 12, part_packs=2, num_passes=2)]


def positions(order: PackOrder) -> list[int]:
    found = [order[position] for position in range(order.total)]
    return [index for index in found if index is not None]


def test_a_pass_visits_everything_once_before_anything_twice() -> None:
    order = PackOrder(TWO, seed=3)
    seen = positions(order)
    first = [index for index in seen if index < 7]
    second = [index - 7 for index in seen if index >= 7]
    for start in range(0, 28, 7):
        assert sorted(first[start : start + 7]) == list(range(7))
    assert len(first) == 30
    assert sorted(second[:5]) == sorted(second[5:10]) == list(range(5))
    assert sorted(second[10:]) == [5, 6], "the part comes last"
    assert first[:7] != first[7:14], "each pass is newly shuffled"


def test_any_position_can_be_asked_for_first() -> None:
    forwards = positions(PackOrder(TWO, seed=3))
    order = PackOrder(TWO, seed=3)
    backwards = [order[position] for position in reversed(range(order.total))]
    assert backwards[::-1] == forwards
    assert order[order.total] is None


def test_sources_are_interleaved_evenly() -> None:
    order = PackOrder([Visits(10, 900), Visits(10, 100)], seed=0)
    for position in range(0, 1001, 10):
        assert order.visits_before(position)[1] == pytest.approx(position / 10, abs=1)


def test_the_phase_may_end_before_the_visits_do() -> None:
    order = PackOrder(TWO, seed=3, total=10)
    assert order.total == 10
    assert order[10] is None
    assert sum(order.visits_before(99)) == 10


def test_seeds_and_sources_have_their_own_order() -> None:
    orders = [positions(PackOrder([Visits(50, 50)], seed=seed)) for seed in (0, 1)]
    both = positions(PackOrder([Visits(50, 50), Visits(50, 50)], seed=0))
    second = [index - 50 for index in both if index >= 50]
    for one, other in itertools.combinations([*orders, second], 2):
        assert one != other
    assert orders[0] == [index for index in both if index < 50]


@pytest.mark.parametrize("counts", [[5], [70_000, 30_000, 1], [0, 40_000, 3], [1, 1]])
def test_the_mixture_is_the_sorted_one_that_it_stands_for(counts: list[int]) -> None:
    points = [
        (np.arange(count) + random_stream(3, source, VISITS).random(count)) / max(count, 1)
        for source, count in enumerate(counts)
    ]
    order = np.argsort(np.concatenate(points), kind="stable")
    source_of = np.repeat(np.arange(len(counts)), counts)[order]
    visit_of = np.concatenate([np.arange(count) for count in counts])[order]
    mixed = Interleaving(counts, seed=3)
    found = [mixed.visit_at(position) for position in range(sum(counts))]
    assert found == list(zip(source_of.tolist(), visit_of.tolist(), strict=True))
    for position in (0, 1, sum(counts) // 2, sum(counts)):
        before = np.bincount(source_of[:position], minlength=len(counts)).tolist()
        assert mixed.visits_before(position) == before


def test_a_start_at_step_one_million_is_immediate() -> None:
    batch = 1024
    total = 2_000_000 * batch
    sources = [Visits(num_packs=50_000, total=total // 4 * 3), Visits(20_000, total // 4)]
    started = time.process_time()
    order = PackOrder(sources, seed=1)
    first = 1_000_000 * batch
    assert {order[first + offset] is None for offset in range(batch)} == {False}
    assert order.visits_before(first)[0] == pytest.approx(first * 3 / 4, abs=2)
    assert time.process_time() - started < 1
