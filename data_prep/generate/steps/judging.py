"""Documents and answers to verdicts, by a judge at temperature 0.

A verdict that cannot be read is a verdict of its own kind, and never keeps a row. A share of the
rows is judged a second time; how often the two agree is counted.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import orjson
from pydantic import create_model

from data_prep.generate.asking import Ask, ReplyForm
from data_prep.generate.context import Context, clause_lines
from data_prep.generate.modes import Mode, YesNo
from data_prep.generate.spec.clauses import Spec

UNREADABLE = "the judge's verdict cannot be read"
Wanted = Mapping[str, YesNo | None]
"""Questions to a judge with the answer that keeps a row; None: either does."""
_ANSWER_WANTED: Wanted = {"aligned": "yes", "informative": "yes", "in_style": "yes"}


class Verdict(NamedTuple):
    """What a judge says of a row."""

    answers: Mapping[str, YesNo]
    refusal: str | None
    """Why the row is refused."""


class JudgedDocument(NamedTuple):
    """A document as the judge sees it."""

    address: str
    clause_ids: tuple[str, ...]
    text: str


class JudgedAnswer(NamedTuple):
    """An answer as the judge sees it."""

    address: str
    clause_ids: tuple[str, ...]
    question: str
    reasoning: str
    answer: str


def judge_documents(
    context: Context, variant: str, spec: Spec, mode: Mode, documents: Sequence[JudgedDocument]
) -> list[Verdict | None]:
    """Return a verdict for each document; None where none could be read."""
    questions = [f"- {name}: {context.prompt(f'judge_{name}').strip()}" for name in mode.judged]
    form = orjson.dumps({**dict.fromkeys(mode.judged, "yes"), "remark": "..."}).decode()
    asks = [
        Ask(
            f"judge/{document.address}",
            context.prompt(
                "document_judge",
                clauses=clause_lines(spec, document.clause_ids),
                document=document.text,
                questions="\n".join(questions),
                form=form,
            ),
        )
        for document in documents
    ]
    return _judge(context, f"judge {variant}", asks, mode.judged)


def judge_answers(
    context: Context, spec: Spec, answers: Sequence[JudgedAnswer], *, style: str
) -> list[Verdict | None]:
    """Return a verdict for each answer; None where none could be read."""
    criteria = context.prompt(f"criteria_{style}")
    asks = [
        Ask(
            f"judge/{answer.address}",
            context.prompt(
                "answer_judge",
                clauses=clause_lines(spec, answer.clause_ids),
                question=answer.question,
                reasoning=answer.reasoning,
                answer=answer.answer,
                criteria=criteria,
            ),
        )
        for answer in answers
    ]
    return _judge(context, "judge answers", asks, _ANSWER_WANTED)


def _judge(
    context: Context, step: str, asks: Sequence[Ask], wanted: Wanted
) -> list[Verdict | None]:
    verdicts = _verdicts(context, step, asks, wanted)
    again = [index for index, ask in enumerate(asks) if _is_judged_twice(context, ask.address)]
    repeated = _verdicts(
        context,
        f"{step}, again",
        [Ask(f"{asks[index].address}/again", asks[index].prompt) for index in again],
        wanted,
    )
    same = sum(
        _decision(verdicts[index]) == _decision(second)
        for index, second in zip(again, repeated, strict=True)
    )
    context.asker.counts.add_agreement(step, rows=len(again), same=same)
    return verdicts


def _verdicts(
    context: Context, step: str, asks: Sequence[Ask], wanted: Wanted
) -> list[Verdict | None]:
    form = _form(tuple(wanted))
    replies = context.asker.read(step, asks, form, temperature=0.0, is_judged=True)
    return [None if reply is None else _verdict(reply.model_dump(), wanted) for reply in replies]


@cache
def _form(questions: tuple[str, ...]) -> type[ReplyForm]:
    """Return the form of a verdict: an answer to each question, and a remark."""
    fields: dict[str, Any] = {name: (YesNo, ...) for name in questions}
    return create_model("Verdict", __base__=ReplyForm, **fields, remark=(str, ""))


def _verdict(said: Mapping[str, Any], wanted: Wanted) -> Verdict:
    wrong = [
        f"{said[name]} to {name.replace('_', ' ')!r}"
        for name, answer in wanted.items()
        if answer not in (None, said[name])
    ]
    refusal = f"judged {' and '.join(wrong)}: {said['remark']}" if wrong else None
    return Verdict({name: said[name] for name in wanted}, refusal)


def _decision(verdict: Verdict | None) -> str:
    if verdict is None:
        return UNREADABLE
    return "kept" if verdict.refusal is None else "refused"


def _is_judged_twice(context: Context, address: str) -> bool:
    digest = hashlib.sha256(f"{context.config.seed}:{address}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < context.config.gates.judged_twice
