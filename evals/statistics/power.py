"""What a study can see: the smallest effect it finds, and how much of it finds a wanted one.

The effect is a paired change. Its variance has two parts, of which only one shrinks with items:

    variance = sd_items^2 / items + (seed variances of the arms) / seeds

Source: Miller, arXiv 2411.00640, section 5, with the seeds of training added, and Student's
quantiles where the variance of seeds decides.
"""

import math
from dataclasses import dataclass

from scipy import stats

from evals.statistics.intervals import CONFIDENCE, Variance

POWER = 0.8
"""Share of studies that find an effect which is there."""

MAX_SEEDS = 1000


def detectable_effect(of_estimate: Variance) -> float:
    """Return the smallest true effect that is found with 80% power at 5%, two-sided."""
    alpha, beta = (
        float(stats.t.ppf(share, of_estimate.dof)) for share in ((1 + CONFIDENCE) / 2, POWER)
    )
    return (alpha + beta) * math.sqrt(of_estimate.value)


@dataclass(frozen=True)
class Design:
    """A planned comparison of two arms."""

    sd_items: float
    """Standard deviation of the change over items."""
    sd_seeds: float = 0.0
    """Standard deviation of one arm's mean over training seeds."""
    num_trained_arms: int = 2
    """Arms that are trained: 1 when the other is the untouched model."""

    def detectable(self, *, num_items: int, num_seeds: int = 1) -> float:
        """Return the smallest effect that is found; with one seed, of that training run alone."""
        items = self.sd_items**2 / num_items
        if num_seeds == 1 or self.sd_seeds == 0:
            return detectable_effect(Variance(items, math.inf))
        seeds = self.num_trained_arms * self.sd_seeds**2 / num_seeds
        seeds_dof = self.num_trained_arms * (num_seeds - 1)
        total = items + seeds
        dof = total**2 / (seeds**2 / seeds_dof)  # Satterthwaite; the items' part is taken as known
        return detectable_effect(Variance(total, dof))

    def items_needed(self, effect: float, *, num_seeds: int = 1) -> int | None:
        """Return how many items find the effect; None when no number does."""
        if self.detectable(num_items=10**12, num_seeds=num_seeds) > effect:
            return None
        low, high = 1, 2
        while self.detectable(num_items=high, num_seeds=num_seeds) > effect:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self.detectable(num_items=middle, num_seeds=num_seeds) > effect:
                low = middle
            else:
                high = middle
        return high

    def seeds_needed(self, effect: float, *, num_items: int) -> int | None:
        """Return how many seeds an arm find the effect; None when no number does.

        From two on: what one seed shows holds for that training run alone.
        """
        for num_seeds in range(2, MAX_SEEDS):
            if self.detectable(num_items=num_items, num_seeds=num_seeds) <= effect:
                return num_seeds
        return None
