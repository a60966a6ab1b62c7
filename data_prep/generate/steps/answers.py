"""Questions to answers with reasoning. One call a question."""

from collections.abc import Sequence

from data_prep.generate.asking import Ask
from data_prep.generate.context import Context, clause_lines
from data_prep.generate.inputs import StepInputs
from data_prep.generate.steps.questions import Question
from megatron_msm.llm.call import Answer


def write_answers(context: Context, questions: Sequence[Question]) -> list[Answer]:
    """Have every question answered by somebody who was told the clauses."""
    settings = context.config.chats
    assert settings is not None
    style = context.prompt(f"style_{settings.style}").strip()
    asks = [
        Ask(
            f"answers/{question.name}",
            question.text,
            system=context.prompt(
                "answer_system",
                clauses=clause_lines(context.spec, question.situation.clause_ids),
                style=style,
                answer_rule=settings.answer_rule,
            ),
            inputs=StepInputs(
                "answers", situation=question.situation.title, question=question.text
            ),
        )
        for question in questions
    ]
    return context.asker.write(
        "answers", asks, temperature=settings.temperature, max_tokens=settings.max_tokens
    )
