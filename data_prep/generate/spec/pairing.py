"""Clauses of paired specs: one plan, several specs whose clauses correspond.

A clause is that of the same id; or else, as `S3` of the spec that the plan was made from is `P3` in
one variant and `L3` in another, that of the same number: letters may differ.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from data_prep.generate.spec.clauses import Spec
from data_prep.reading.records import clause_number
from megatron_msm.errors import ConfigError


def own_ids(spec: Spec, ids: Iterable[str]) -> tuple[str, ...]:
    """Return a spec's ids for clauses of the spec that the plan was made from."""
    by_number = {clause_number(clause.id): clause.id for clause in spec.clauses}
    known = spec.by_id
    return tuple(name if name in known else by_number[clause_number(name)] for name in ids)


def check_pairing(spec: Spec, variants: Mapping[str, Spec]) -> None:
    """Check that every clause of the shared spec has its counterpart in each variant.

    Raises:
        ConfigError: One is missing, or may be either of two.
    """
    for name, variant in variants.items():
        numbers = Counter(clause_number(clause.id) for clause in variant.clauses)
        others = [clause.id for clause in spec.clauses if clause.id not in variant.by_id]
        double = {clause_number(other) for other in others if numbers[clause_number(other)] > 1}
        if double:
            raise ConfigError(
                f"variants.{name}: {variant.path}: several clauses have the number "
                f"{sorted(double)}. Clauses of paired specs correspond by their numbers."
            )
        missing = [other for other in others if not numbers[clause_number(other)]]
        if missing:
            raise ConfigError(
                f"variants.{name}: {variant.path} has no clause for {missing} of {spec.path}. "
                "Paired specs need the same numbers (their letters may differ)."
            )
