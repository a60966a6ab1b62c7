"""Several comparisons at once: p-values that count all of a family.

    Holm                  the chance of any false finding in the family stays at 5%
    Benjamini-Hochberg    of what is called found, 5% is false on average

Sources: Holm 1979; Benjamini and Hochberg 1995, by scipy.
"""

from collections.abc import Sequence

from scipy import stats


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p-values, in the given order."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(largest, 1.0)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p-values, in the given order."""
    return [float(p) for p in stats.false_discovery_control(p_values)] if p_values else []
