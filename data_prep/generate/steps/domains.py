"""Spec to domains: few, broad parts that do not overlap and together cover it. One call."""

from data_prep.generate.asking import Ask, ReplyForm
from data_prep.generate.context import Context, clause_lines, clauses_of, unique_slugs
from data_prep.generate.inputs import StepInputs
from data_prep.generate.plan import Domain
from data_prep.generate.steps.citing import known_ids
from megatron_msm.errors import DataFormatError


class _Item(ReplyForm):
    domain: str
    clause_ids: list[str]


class _Reply(ReplyForm):
    domains: list[_Item]


def ask_domains(context: Context) -> list[Domain]:
    """Return the domains of the spec.

    Raises:
        DataFormatError: No try brought any.
    """
    settings = context.config.documents
    number = settings.domains if settings else None
    prompt = context.prompt(
        "domains",
        clauses=clause_lines(context.spec),
        number=f"exactly {number}" if number else "between 4 and 12",
    )
    ask = Ask("domains", prompt, inputs=StepInputs("domains", clauses=clauses_of(context.spec)))
    (reply,) = context.asker.read("domains", [ask], _Reply, max_tokens=16_000)
    items = [] if reply is None else reply.domains
    cited = [
        known_ids(context, "domains", item.clause_ids, among=tuple(context.spec.by_id))
        for item in items
    ]
    domains = [
        Domain(name=name, title=item.domain, clause_ids=ids)
        for name, item, ids in zip(
            unique_slugs([item.domain for item in items]), items, cited, strict=True
        )
        if ids
    ]
    if not domains:
        raise DataFormatError(
            f"{context.spec.path}: the model named no domain with clauses of the spec, in three "
            "tries. Ask a stronger model, or look at the replies in the journal."
        )
    return domains
