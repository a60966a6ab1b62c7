"""Domains to subdomains: specific parts, each with the clauses it is about. One call a domain.

In rules mode each clause of a domain is a subdomain of its own, and no model is asked.
"""

from collections.abc import Sequence

from data_prep.generate.asking import Ask, ReplyForm
from data_prep.generate.context import Context, clause_lines, clauses_of, unique_slugs
from data_prep.generate.inputs import StepInputs
from data_prep.generate.plan import CorpusPlan, Domain, Subdomain, documents_per_clause
from data_prep.generate.steps.citing import known_ids

_COVER_ROUNDS = 3


class _Item(ReplyForm):
    subdomain: str
    summary: str
    clause_ids: list[str]


class _Reply(ReplyForm):
    subdomains: list[_Item]


def ask_subdomains(context: Context, domains: Sequence[Domain]) -> list[Domain]:
    """Return the domains with their subdomains; one for which none came is left out."""
    asks = [
        Ask(
            f"subdomains/{domain.name}",
            context.prompt(
                "subdomains",
                domain=domain.title,
                clauses=clause_lines(context.spec, domain.clause_ids),
            ),
            inputs=StepInputs(
                "subdomains",
                clauses=clauses_of(context.spec, domain.clause_ids),
                domain=domain.title,
            ),
        )
        for domain in domains
    ]
    replies = context.asker.read("subdomains", asks, _Reply, max_tokens=16_000)
    filled = []
    for domain, reply in zip(domains, replies, strict=True):
        items = [] if reply is None else reply.subdomains
        subdomains = _subdomains(context, items, among=domain.clause_ids)
        if subdomains:
            filled.append(domain.model_copy(update={"subdomains": subdomains}))
        else:
            context.asker.counts.add("subdomains", "domain without subdomains")
    return filled


def clauses_as_subdomains(context: Context, domains: Sequence[Domain]) -> list[Domain]:
    """Return the domains with a subdomain for each clause: the rules mode."""
    by_id = context.spec.by_id
    return [
        domain.model_copy(
            update={
                "subdomains": tuple(
                    Subdomain(
                        name=name,
                        title=by_id[clause].title or clause,
                        summary=by_id[clause].text,
                        clause_ids=(clause,),
                    )
                    for name, clause in zip(
                        unique_slugs(domain.clause_ids), domain.clause_ids, strict=True
                    )
                )
            }
        )
        for domain in domains
    ]


def cover_clauses(
    context: Context, plan: CorpusPlan, *, per_subdomain: int, least: int
) -> CorpusPlan:
    """Add subdomains for clauses that too few planned documents cite.

    Args:
        context: The run's.
        plan: What is planned.
        per_subdomain: Documents of a subdomain.
        least: Documents that must cite each clause.
    """
    for number in range(_COVER_ROUNDS):
        planned = documents_per_clause(plan, context.spec, per_subdomain=per_subdomain)
        short = [clause for clause, count in planned.items() if count < least]
        if not short:
            return plan
        plan = _covered(context, plan, short, number=number)
    planned = documents_per_clause(plan, context.spec, per_subdomain=per_subdomain)
    for clause, count in planned.items():
        if count < least:
            context.asker.counts.add("coverage", f"clause {clause} below {least} documents")
    return plan


def _covered(
    context: Context, plan: CorpusPlan, short: Sequence[str], *, number: int
) -> CorpusPlan:
    prompt = context.prompt(
        "coverage",
        clauses=clause_lines(context.spec, short),
        domains="\n".join(f"- {domain.title}" for domain in plan.domains),
    )
    inputs = StepInputs("subdomains", clauses=clauses_of(context.spec, short))
    ask = Ask(f"coverage/{number}", prompt, inputs=inputs)
    (reply,) = context.asker.read("coverage", [ask], _Reply, max_tokens=16_000)
    added = _subdomains(context, [] if reply is None else reply.subdomains, among=short)
    if not added:
        return plan
    new = Domain(
        name=f"coverage-{number}",
        title=context.config.topic,
        clause_ids=tuple(short),
        subdomains=added,
    )
    return plan.model_copy(update={"domains": (*plan.domains, new)})


def _subdomains(
    context: Context, items: Sequence[_Item], *, among: Sequence[str]
) -> tuple[Subdomain, ...]:
    names = unique_slugs([item.subdomain for item in items])
    made = []
    for name, item in zip(names, items, strict=True):
        ids = known_ids(context, "subdomains", item.clause_ids, among=among)
        if ids:
            made.append(
                Subdomain(name=name, title=item.subdomain, summary=item.summary, clause_ids=ids)
            )
        else:
            context.asker.counts.add("subdomains", "subdomain without clauses")
    return tuple(made)
