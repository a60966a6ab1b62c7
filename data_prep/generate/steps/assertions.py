"""Clauses to assertions: what the model does, prefers or believes, and why. One call a subdomain.

Asked of each variant's own clauses, so that the reasons are its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

from data_prep.generate.asking import Ask, ReplyForm
from data_prep.generate.context import Context, clause_lines, clauses_of
from data_prep.generate.inputs import StepInputs
from data_prep.generate.plan import Domain, Subdomain
from data_prep.generate.spec.clauses import Spec
from data_prep.generate.spec.pairing import own_ids
from data_prep.generate.steps.citing import known_ids


class Assertion(NamedTuple):
    """A sentence about the model that documents are to teach."""

    text: str
    explanation: str
    clause_ids: tuple[str, ...]


class _Item(ReplyForm):
    assertion: str
    explanation: str
    clause_ids: list[str]


class _Reply(ReplyForm):
    assertions: list[_Item]


def ask_assertions(
    context: Context, variant: str, spec: Spec, parts: Sequence[tuple[Domain, Subdomain]]
) -> list[list[Assertion]]:
    """Return the assertions of each subdomain; an empty list where no try brought any."""
    asks = [
        Ask(
            f"assertions/{variant}/{domain.name}/{subdomain.name}",
            context.prompt(
                "assertions",
                subdomain=subdomain.title,
                clauses=clause_lines(spec, own_ids(spec, subdomain.clause_ids)),
            ),
            inputs=StepInputs(
                "assertions",
                clauses=clauses_of(spec, own_ids(spec, subdomain.clause_ids)),
                variant=variant,
                subdomain=subdomain.title,
            ),
        )
        for domain, subdomain in parts
    ]
    replies = context.asker.read("assertions", asks, _Reply, max_tokens=8000)
    return [
        [
            Assertion(item.assertion, item.explanation, ids)
            for item in (reply.assertions if reply else [])
            if (
                ids := known_ids(
                    context,
                    "assertions",
                    item.clause_ids,
                    among=own_ids(spec, subdomain.clause_ids),
                )
            )
        ]
        for (_, subdomain), reply in zip(parts, replies, strict=True)
    ]


def assertion_lines(assertions: Sequence[Assertion]) -> str:
    """Return assertions as a prompt shows them."""
    return "\n".join(
        f"- [{', '.join(a.clause_ids)}] {a.text} ({a.explanation})" for a in assertions
    )
