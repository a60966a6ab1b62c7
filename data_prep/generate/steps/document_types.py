"""Subdomains to kinds of document, such as an interview or a log."""

from collections.abc import Sequence
from functools import partial

from data_prep.generate.asking import ReplyForm
from data_prep.generate.context import Context, clause_lines
from data_prep.generate.inputs import StepInputs
from data_prep.generate.plan import Domain, Subdomain
from data_prep.generate.steps.fan_out import Item, Wanted, fill_lists


class _Item(ReplyForm):
    document_type: str
    description: str


class _Reply(ReplyForm):
    document_types: list[_Item]


def ask_document_types(
    context: Context,
    parts: Sequence[tuple[Domain, Subdomain]],
    *,
    number: int,
    temperature: float | None,
) -> list[list[Item]]:
    """Return the kinds of document of each subdomain."""
    lists = [
        Wanted(
            f"document-types/{domain.name}/{subdomain.name}",
            partial(_prompt, context, domain, subdomain),
            StepInputs("document types", domain=domain.title, subdomain=subdomain.title),
        )
        for domain, subdomain in parts
    ]
    return fill_lists(
        context,
        "document types",
        lists,
        number=number,
        form=_Reply,
        items_of=_items,
        temperature=temperature,
    )


def _items(reply: _Reply) -> list[Item]:
    return [Item(item.document_type, item.description) for item in reply.document_types]


def _prompt(
    context: Context, domain: Domain, subdomain: Subdomain, existing: str, number: int
) -> str:
    return context.prompt(
        "document_types",
        domain=domain.title,
        subdomain=subdomain.title,
        summary=subdomain.summary,
        clauses=clause_lines(context.spec, subdomain.clause_ids),
        existing=existing,
        number=number,
    )
