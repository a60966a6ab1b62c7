"""Ideas to documents, for one variant of the spec. One call a document."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_prep.generate.asking import Ask
from data_prep.generate.context import Context, clause_lines
from data_prep.generate.inputs import StepInputs
from data_prep.generate.spec.clauses import Spec
from data_prep.generate.spec.pairing import own_ids
from data_prep.generate.steps.assertions import Assertion, assertion_lines
from data_prep.generate.steps.ideas import Idea
from megatron_msm.llm.call import Answer


class WrittenDocument(NamedTuple):
    """An idea with what a model made of it."""

    idea: Idea
    assertions: tuple[Assertion, ...]
    answer: Answer


def write_documents(
    context: Context,
    variant: str,
    spec: Spec,
    ideas: Sequence[Idea],
    assertions: Mapping[tuple[str, str], Sequence[Assertion]],
) -> list[WrittenDocument]:
    """Have every idea written.

    Args:
        context: The run's.
        variant: The corpus.
        spec: Its spec.
        ideas: What to write.
        assertions: By (domain, subdomain); in rules mode none.
    """
    settings = context.config.documents
    assert settings is not None
    told = [tuple(assertions.get((i.domain.name, i.subdomain.name), ())) for i in ideas]
    asks = [
        Ask(
            f"documents/{variant}/{idea.name}",
            _prompt(context, spec, idea, own),
            inputs=StepInputs(
                "documents",
                variant=variant,
                domain=idea.domain.title,
                subdomain=idea.subdomain.title,
                document_type=idea.document_type.title,
                idea=idea.text,
            ),
        )
        for idea, own in zip(ideas, told, strict=True)
    ]
    answers = context.asker.write(
        f"documents {variant}",
        asks,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    )
    return [WrittenDocument(*parts) for parts in zip(ideas, told, answers, strict=True)]


def _prompt(context: Context, spec: Spec, idea: Idea, assertions: Sequence[Assertion]) -> str:
    settings = context.config.documents
    assert settings is not None
    shared: dict[str, object] = {
        "clauses": clause_lines(spec, own_ids(spec, idea.subdomain.clause_ids)),
        "document_type": idea.document_type.title,
        "description": idea.document_type.text,
        "idea": idea.text,
        "requirements": "\n".join(f"- {text}" for text in settings.requirements),
    }
    if settings.mode == "rules":
        return context.prompt("document_rules", **shared)
    return context.prompt("document", assertions=assertion_lines(assertions), **shared)
