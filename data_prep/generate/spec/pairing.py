"""Clauses of paired specs: one plan, several specs whose clauses correspond by their numbers.

`S3` of the spec that the plan was made from is `P3` in one variant and `L3` in another: letters may
differ, what follows them must not.
"""

from collections.abc import Iterable, Mapping

from data_prep.generate.spec.clauses import Spec
from data_prep.reading.records import clause_number
from megatron_msm.errors import ConfigError


def own_ids(spec: Spec, ids: Iterable[str]) -> tuple[str, ...]:
    """Return a spec's ids for clauses of the spec that the plan was made from."""
    own = _by_number(spec)
    return tuple(own[clause_number(clause)] for clause in ids)


def check_pairing(spec: Spec, variants: Mapping[str, Spec]) -> None:
    """Check that every clause of the shared spec has its counterpart in each variant.

    Raises:
        ConfigError: One is missing, or two of a variant have one number.
    """
    for name, variant in variants.items():
        numbers = [clause_number(clause.id) for clause in variant.clauses]
        if double := sorted({number for number in numbers if numbers.count(number) > 1}):
            raise ConfigError(
                f"variants.{name}: {variant.path}: several clauses have the number {double}. "
                "Clauses of paired specs correspond by their numbers."
            )
        missing = [
            clause.id for clause in spec.clauses if clause_number(clause.id) not in set(numbers)
        ]
        if missing:
            raise ConfigError(
                f"variants.{name}: {variant.path} has no clause for {missing} of {spec.path}. "
                "Paired specs need the same numbers (their letters may differ)."
            )


def _by_number(spec: Spec) -> dict[str, str]:
    return {clause_number(clause.id): clause.id for clause in spec.clauses}
