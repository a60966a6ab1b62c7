"""Planned precision, beside the package errorbars and beside what simulated studies find."""

import numpy as np
import pytest
from errorbars.power import minimum_detectable_effect, questions_needed
from scipy import stats

from evals.statistics.power import Design


@pytest.mark.parametrize(("num_items", "share", "rho"), [(200, 0.5, 0.0), (1000, 0.2, 0.6)])
def test_without_seeds_it_is_what_errorbars_says(num_items: int, share: float, rho: float) -> None:
    variance = 2 * share * (1 - share) * (1 - rho)  # of a change in a paired rate
    design = Design(sd_items=variance**0.5)
    effect = minimum_detectable_effect(num_items, share, rho=rho)
    assert design.detectable(num_items=num_items) == pytest.approx(effect, rel=1e-6)
    needed = questions_needed(0.07, share, rho=rho).n_questions
    assert design.items_needed(0.07) == needed


def test_no_number_of_items_makes_up_for_too_few_seeds() -> None:
    design = Design(sd_items=0.5, sd_seeds=0.1)
    assert design.items_needed(0.1, num_seeds=3) is None
    seeds = design.seeds_needed(0.1, num_items=500)
    assert seeds is not None
    assert design.detectable(num_items=500, num_seeds=seeds) <= 0.1
    assert design.detectable(num_items=500, num_seeds=seeds - 1) > 0.1
    assert design.seeds_needed(0.001, num_items=10) is None


def test_planned_studies_find_the_effect_in_four_of_five() -> None:
    design = Design(sd_items=0.4, sd_seeds=0.1)
    num_items, num_seeds = 100, 4
    effect = design.detectable(num_items=num_items, num_seeds=num_seeds)
    chance = np.random.default_rng(1)
    shape = (20_000, 2, num_seeds)
    runs = chance.normal(0, 0.1, shape)
    items = chance.normal(effect, 0.4 / num_items**0.5, shape[0])
    changes = items + runs[:, 1].mean(1) - runs[:, 0].mean(1)
    of_seeds = runs.var(axis=2, ddof=1).sum(axis=1) / num_seeds
    of_items = 0.4**2 / num_items
    dof = (of_seeds + of_items) ** 2 / (of_seeds**2 / (2 * (num_seeds - 1)))
    is_found = np.abs(changes) > stats.t.ppf(0.975, dof) * np.sqrt(of_seeds + of_items)
    assert is_found.mean() == pytest.approx(0.8, abs=0.04)
