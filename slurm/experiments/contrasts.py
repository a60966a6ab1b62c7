"""The contrasts that an experiment is about, as `msm eval report --contrast` takes them.

Unless the grid names its own, those of the study: after one and the same AFT, a spec against each
other spec, against AFT alone and against neutral documents, and what AFT adds to a spec beyond what
each does alone. After a later phase, also what it took from a spec beyond what it took from AFT
alone.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from megatron_msm.errors import ConfigError
from slurm.experiments.grid import NEUTRAL
from slurm.experiments.lineage import Lineage, without_seed


def study_contrasts(lineages: Sequence[Lineage]) -> list[str]:
    """Return the study's own contrasts among arms, each `NAME=+ARM,-ARM,...`.

    Seeds of an arm are one arm here: the report takes them as its replicates.
    """
    arms = list(dict.fromkeys(replace(lineage, seed=None) for lineage in lineages))
    known = set(arms)
    tuned = [arm for arm in arms if arm.spec not in (None, NEUTRAL) and arm.aft is not None]
    return [text for arm in tuned for text in _of_arm(arm, known, arms)]


def named_contrasts(contrasts: Mapping[str, str], lineages: Sequence[Lineage]) -> list[str]:
    """Return a grid's own contrasts in the same form.

    Raises:
        ConfigError: One names an arm that the grid does not have.
    """
    known = {replace(lineage, seed=None).name(show_seed=False) for lineage in lineages}
    for name, text in contrasts.items():
        for arm in arms_of(text):
            if arm not in known:
                raise ConfigError(
                    f"contrasts.{name}: no arm {arm!r}. Write +ARM,-ARM of: "
                    f"{', '.join(sorted(known))}."
                )
    return [f"{name}={text}" for name, text in contrasts.items()]


def arms_of(text: str) -> list[str]:
    """Return the arms of `+ARM,-ARM,...`."""
    return [part.strip().lstrip("+-") for part in text.split(",")]


def possible(contrasts: Sequence[str], arms: Collection[str]) -> list[str]:
    """Return the contrasts all of whose arms are there; `arms` may have seeds."""
    there = {without_seed(arm) for arm in arms}
    return [text for text in contrasts if there.issuperset(arms_of(text.partition("=")[2]))]


def _of_arm(arm: Lineage, known: Collection[Lineage], arms: Sequence[Lineage]) -> Iterator[str]:
    what = " then ".join([str(arm.aft), *arm.later])
    where = f"{arm.model} {what}{arm.variant.replace('=', ' ')}"
    same = [one for one in arms if one == replace(arm, spec=one.spec) and one.spec]
    others = [one for one in same if one.spec != NEUTRAL]
    for first, second in combinations(others, 2):
        if first == arm:
            yield _text(f"{first.spec} against {second.spec} ({where})", [first], [second])
    alone, neutral = replace(arm, spec=None), replace(arm, spec=NEUTRAL)
    if alone in known:
        yield _text(f"{arm.spec} against AFT alone ({where})", [arm], [alone])
    if neutral in known:
        yield _text(f"{arm.spec} against neutral documents ({where})", [arm], [neutral])
    kept, kept_alone = replace(arm, later=()), replace(alone, later=())
    if arm.later and {alone, kept, kept_alone} <= set(known):
        name = f"what {arm.later[-1]} takes from {arm.spec} beyond AFT alone ({where})"
        yield _text(name, [arm, kept_alone], [kept, alone])
    untuned, base = replace(arm, aft=None), Lineage(arm.model)
    if {alone, untuned, base} <= set(known):
        name = f"{arm.spec} and AFT beyond each alone ({where})"
        yield _text(name, [arm, base], [untuned, alone])


def _text(name: str, plus: Sequence[Lineage], minus: Sequence[Lineage]) -> str:
    signed = [f"+{arm.name(show_seed=False)}" for arm in plus]
    signed += [f"-{arm.name(show_seed=False)}" for arm in minus]
    return f"{name}={','.join(signed)}"
