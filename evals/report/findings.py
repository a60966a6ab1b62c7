"""What comparisons show, once all of an evaluation's comparisons are known.

There are two families of an evaluation, both of its headline:

    over all items   every arm's change and every contrast: Holm
    by group         the same in each tier, condition or clause: Benjamini-Hochberg

An effect is shown where the interval excludes zero, the family's correction leaves p under 5%, and
the size is above the noise floor of repeats.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from evals.statistics.contrast import Contrast
from evals.statistics.intervals import CONFIDENCE
from evals.statistics.multiplicity import benjamini_hochberg, holm
from evals.statistics.paired import verdict
from megatron_msm.formats.eval_result import Interval, Metric

Key = TypeVar("Key", bound=Hashable)

OVERALL_METHOD, GROUP_METHOD = "Holm", "Benjamini-Hochberg"


@dataclass(frozen=True)
class Finding:
    """A change or a contrast, and what it shows."""

    found: Contrast
    p_adjusted: float | None
    """Over the family; None where there is no interval."""
    method: str
    num_comparisons: int
    """Size of the family."""
    text: str
    shows_effect: bool

    @property
    def interval(self) -> Interval:
        """The estimate and its interval, which is not corrected."""
        return self.found.interval


def findings(
    contrasts: Mapping[tuple[Key, str | None], Contrast], metric: Metric
) -> dict[tuple[Key, str | None], Finding]:
    """Return what each contrast shows.

    Args:
        contrasts: By what it is, and its group (None: all items).
        metric: The headline.
    """
    overall = {key: one for key, one in contrasts.items() if key[1] is None}
    by_group = {key: one for key, one in contrasts.items() if key[1] is not None}
    adjusted = _adjusted(overall, OVERALL_METHOD) | _adjusted(by_group, GROUP_METHOD)
    return {
        key: _finding(
            one,
            adjusted[key],
            OVERALL_METHOD if key[1] is None else GROUP_METHOD,
            len(overall if key[1] is None else by_group),
            metric,
        )
        for key, one in contrasts.items()
    }


def _adjusted(
    family: Mapping[tuple[Key, str | None], Contrast], method: str
) -> dict[tuple[Key, str | None], float | None]:
    known = {key: one.p_value for key, one in family.items() if one.p_value is not None}
    correct = holm if method == OVERALL_METHOD else benjamini_hochberg
    corrected = dict(zip(known, correct(list(known.values())), strict=True))
    return {key: corrected.get(key) for key in family}


def _finding(
    found: Contrast, p_adjusted: float | None, method: str, num_comparisons: int, metric: Metric
) -> Finding:
    change, floor = found.interval, found.noise_floor
    excludes_zero = change.is_above_zero or change.is_below_zero
    is_noise = floor is not None and abs(change.estimate) <= floor
    is_left = p_adjusted is not None and p_adjusted < 1 - CONFIDENCE
    text = verdict(change, metric)
    if floor is not None and is_noise:
        text = (
            f"inside the noise floor: repeats of one checkpoint differ by up to {floor:.2f}; {text}"
        )
    elif excludes_zero and not is_left:
        text += f"; not after {method} over {num_comparisons} comparisons (p {p_adjusted:.2g})"
    if method == OVERALL_METHOD and not excludes_zero and not is_noise and found.detectable:
        text += (
            f"; an effect under {found.detectable:.2f} is inside the noise floor of this comparison"
        )
    return Finding(
        found=found,
        p_adjusted=p_adjusted,
        method=method,
        num_comparisons=num_comparisons,
        text=text,
        shows_effect=excludes_zero and is_left and not is_noise,
    )
