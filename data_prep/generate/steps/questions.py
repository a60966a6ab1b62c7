"""Situations to messages that people could send."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

from data_prep.generate.asking import ReplyForm
from data_prep.generate.context import Context, clause_lines
from data_prep.generate.inputs import StepInputs
from data_prep.generate.steps.fan_out import Item, Wanted, fill_lists
from data_prep.generate.steps.situations import Situation
from megatron_msm.formats.files import sha256_of_text

Side = Literal["one", "two"]
"""one: the clauses settle the matter. two: they have the model decline, weigh or step back."""


class Question(NamedTuple):
    """A message to the model."""

    situation: Situation
    side: Side
    text: str

    @property
    def name(self) -> str:
        """Its id: the situation and a hash of the text."""
        return f"{self.situation.name}/{sha256_of_text(self.text)[:12]}"


class _Reply(ReplyForm):
    questions: list[str]


def ask_questions(
    context: Context,
    situations: Sequence[Situation],
    *,
    number: int,
    two_sided: int,
    turn: str,
    existing: Sequence[Question] = (),
) -> list[Question]:
    """Return questions for every situation, in its order.

    Args:
        context: The run's.
        situations: What they are asked in.
        number: Questions of each.
        two_sided: How many of them are two-sided.
        turn: Names this round of asking.
        existing: Questions of earlier rounds, which are not repeated.
    """
    settings = context.config.chats
    assert settings is not None
    made: dict[tuple[str, Side], list[Question]] = {}
    wanted: list[tuple[Side, int]] = [("one", number - two_sided), ("two", two_sided)]
    for side, count in wanted:
        if not count:
            continue
        before = [
            [Item(q.text, q.text) for q in existing if (q.situation, q.side) == (own, side)]
            for own in situations
        ]
        filled = fill_lists(
            context,
            "questions",
            [
                Wanted(
                    f"questions/{turn}/{own.name}/{side}",
                    partial(_prompt, context, own, side),
                    StepInputs("questions", situation=own.title, side=side),
                )
                for own in situations
            ],
            number=count,
            form=_Reply,
            items_of=_items,
            temperature=settings.temperature,
            per_call=settings.questions_per_call,
            existing=before,
        )
        for own, items in zip(situations, filled, strict=True):
            made[own.name, side] = [Question(own, side, item.text) for item in items]
    sides: tuple[Side, ...] = ("one", "two")
    return [q for own in situations for side in sides for q in made.get((own.name, side), [])]


def _items(reply: _Reply) -> list[Item]:
    return [Item(text.strip(), text.strip()) for text in reply.questions]


def _prompt(context: Context, situation: Situation, side: Side, existing: str, number: int) -> str:
    return context.prompt(
        "questions",
        clauses=clause_lines(context.spec, situation.clause_ids),
        situation=situation.title,
        side=context.prompt(f"side_{side}").strip(),
        existing=existing,
        number=number,
    )
