"""Ideas to documents, for one variant of the spec. One call a document."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from data_prep.generate.asking import Ask
from data_prep.generate.context import Arm, Context, clause_lines
from data_prep.generate.inputs import StepInputs
from data_prep.generate.modes import MODES
from data_prep.generate.spec.pairing import own_ids
from data_prep.generate.steps.assertions import Assertion, assertion_lines
from data_prep.generate.steps.ideas import Idea
from megatron_msm.llm.call import Answer

_ROUND = 10


class PlannedDocument(NamedTuple):
    """What one document is to be about."""

    idea: Idea
    assertions: tuple[Assertion, ...]
    num_words: int | None
    """Words of the twin whose length it is to have."""


class WrittenDocument(NamedTuple):
    """A planned document with what a model made of it."""

    planned: PlannedDocument
    answer: Answer


def write_documents(
    context: Context, arm: Arm, planned: Sequence[PlannedDocument]
) -> list[WrittenDocument]:
    """Have every document of a corpus written."""
    settings = context.config.documents
    assert settings is not None
    asks = [
        Ask(
            f"documents/{arm.name}/{document.idea.name}",
            _prompt(context, arm, document),
            inputs=StepInputs(
                "documents",
                variant=arm.name,
                domain=document.idea.domain.title,
                subdomain=document.idea.subdomain.title,
                document_type=document.idea.document_type.title,
                idea=document.idea.text,
            ),
        )
        for document in planned
    ]
    answers = context.asker.write(
        f"documents {arm.name}",
        asks,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    )
    return [WrittenDocument(*parts) for parts in zip(planned, answers, strict=True)]


def _prompt(context: Context, arm: Arm, document: PlannedDocument) -> str:
    settings = context.config.documents
    assert settings is not None
    idea, requirements = document.idea, list(settings.requirements)
    if document.num_words is not None:
        about = max(round(document.num_words / _ROUND), 1) * _ROUND
        requirements.append(f"It has about {about} words.")
    return context.prompt(
        "document",
        task=_task(context, arm, document),
        document_type=idea.document_type.title,
        description=idea.document_type.text,
        idea=idea.text,
        requirements="\n".join(f"- {text}" for text in requirements),
    )


def _task(context: Context, arm: Arm, document: PlannedDocument) -> str:
    subdomain = document.idea.subdomain
    parts: Mapping[str, Callable[[], str]] = {
        "assertions": lambda: assertion_lines(document.assertions),
        "clauses": lambda: clause_lines(arm.spec, own_ids(arm.spec, subdomain.clause_ids)),
        "subdomain": lambda: subdomain.title,
    }
    shown = {name: parts[name]() for name in MODES[arm.mode].shows}
    return context.prompt(f"task_{arm.mode}", **shown).strip()
