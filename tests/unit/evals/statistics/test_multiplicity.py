"""Corrections beside the package errorbars, and worked by hand."""

import random

import pytest
from errorbars.leaderboard import holm_correction

from evals.statistics.multiplicity import benjamini_hochberg, holm


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_that_of_errorbars(seed: int) -> None:
    chance = random.Random(seed)
    p_values = [chance.random() ** 3 for _ in range(9)]
    assert holm(p_values) == pytest.approx(holm_correction(p_values))


def test_both_by_hand() -> None:
    # Sorted .01 .02 .04: Holm 3 x .01, 2 x .02, 1 x .04, never falling; BH 3/1, 3/2, 3/3.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert benjamini_hochberg([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.03])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert (holm([]), benjamini_hochberg([])) == ([], [])
