"""Kinds of document to ideas: what happens in one document, who speaks, to whom."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from data_prep.generate.asking import ReplyForm
from data_prep.generate.context import Context, clause_lines, unique_slugs
from data_prep.generate.inputs import StepInputs
from data_prep.generate.plan import Domain, Subdomain
from data_prep.generate.steps.fan_out import Item, Wanted, fill_lists


class Idea(NamedTuple):
    """One planned document."""

    domain: Domain
    subdomain: Subdomain
    document_type: Item
    name: str
    """Its id: domain/subdomain/type/idea."""
    text: str


class _Item(ReplyForm):
    title: str
    idea: str


class _Reply(ReplyForm):
    ideas: list[_Item]


def ask_ideas(
    context: Context,
    parts: Sequence[tuple[Domain, Subdomain]],
    document_types: Sequence[Sequence[Item]],
    *,
    number: int,
    temperature: float | None,
) -> list[Idea]:
    """Return the ideas of every subdomain and kind, in the plan's order."""
    kinds = [
        (domain, subdomain, kind, name)
        for (domain, subdomain), items in zip(parts, document_types, strict=True)
        for kind, name in zip(items, unique_slugs([item.title for item in items]), strict=True)
    ]
    lists = [
        Wanted(
            f"ideas/{domain.name}/{subdomain.name}/{name}",
            partial(_prompt, context, domain, subdomain, kind),
            StepInputs(
                "ideas",
                domain=domain.title,
                subdomain=subdomain.title,
                document_type=kind.title,
            ),
        )
        for domain, subdomain, kind, name in kinds
    ]
    filled = fill_lists(
        context,
        "ideas",
        lists,
        number=number,
        form=_Reply,
        items_of=_items,
        temperature=temperature,
    )
    return [
        Idea(domain, subdomain, kind, f"{domain.name}/{subdomain.name}/{name}/{own}", item.text)
        for (domain, subdomain, kind, name), items in zip(kinds, filled, strict=True)
        for item, own in zip(items, unique_slugs([item.title for item in items]), strict=True)
    ]


def _items(reply: _Reply) -> list[Item]:
    return [Item(item.title, item.idea) for item in reply.ideas]


def _prompt(
    context: Context,
    domain: Domain,
    subdomain: Subdomain,
    kind: Item,
    existing: str,
    number: int,
) -> str:
    return context.prompt(
        "ideas",
        domain=domain.title,
        subdomain=subdomain.title,
        summary=subdomain.summary,
        clauses=clause_lines(context.spec, subdomain.clause_ids),
        document_type=kind.title,
        description=kind.text,
        existing=existing,
        number=number,
    )
