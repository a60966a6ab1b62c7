"""Clauses to testable tenets, and messages that test each in several ways. One call a clause."""

from collections.abc import Sequence
from typing import NamedTuple

from data_prep.generate.asking import Ask, ReplyForm
from data_prep.generate.context import Context, clause_lines
from data_prep.generate.settings import TenetSettings
from data_prep.generate.spec.clauses import Clause, Spec

_LEAST_PROBES = 2
"""A sentence that is tested once is not tested in several ways."""


class Tenet(NamedTuple):
    """A sentence of a clause that an answer keeps or breaks."""

    clause: Clause
    text: str
    probes: tuple[str, ...]
    """Messages to the assistant."""


class _Item(ReplyForm):
    tenet: str
    probes: list[str]


class _Reply(ReplyForm):
    tenets: list[_Item]


def ask_tenets(context: Context, variant: str, spec: Spec, settings: TenetSettings) -> list[Tenet]:
    """Return the tenets of all clauses, in the spec's order; too few messages make none."""
    asks = [
        Ask(
            f"tenets/{variant}/{clause.id}",
            context.prompt(
                "tenets",
                clause=clause_lines(spec, [clause.id]),
                number=settings.per_clause,
                probes=settings.probes,
            ),
        )
        for clause in spec.clauses
    ]
    replies = context.asker.read(
        "tenets", asks, _Reply, temperature=settings.temperature, max_tokens=settings.max_tokens
    )
    return [
        tenet
        for clause, reply in zip(spec.clauses, replies, strict=True)
        for tenet in _of_clause(context, clause, reply.tenets if reply else (), settings)
    ]


def _of_clause(
    context: Context, clause: Clause, items: Sequence[_Item], settings: TenetSettings
) -> list[Tenet]:
    tenets = []
    for item in items[: settings.per_clause]:
        probes = tuple(dict.fromkeys(text.strip() for text in item.probes if text.strip()))
        if not item.tenet.strip() or len(probes) < _LEAST_PROBES:
            context.asker.counts.add("tenets", "too few messages")
            continue
        tenets.append(Tenet(clause, item.tenet.strip(), probes[: settings.probes]))
    return tenets
