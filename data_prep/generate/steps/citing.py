"""Clause ids in replies: those that the spec has, each once; others are counted and left out."""

from collections.abc import Sequence

from data_prep.generate.context import Context


def known_ids(
    context: Context, step: str, ids: Sequence[str], *, among: Sequence[str]
) -> tuple[str, ...]:
    """Return the ids that may be cited, in their order.

    Args:
        context: The run's.
        step: Under which unknown ones are counted.
        ids: As a model gave them, possibly in brackets.
        among: The ids that may be cited, in the spec's order.
    """
    allowed = tuple(among)
    given = {text.strip().strip("[]()").strip() for text in ids}
    for _ in given - set(allowed):
        context.asker.counts.add(step, "unknown clause id")
    return tuple(clause for clause in allowed if clause in given)
