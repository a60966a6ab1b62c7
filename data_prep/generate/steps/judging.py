"""Documents and answers to verdicts, by a judge at temperature 0.

A verdict that cannot be read is a verdict of its own kind, and never keeps a row. A share of the
rows is judged a second time; how often the two agree is counted.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from data_prep.generate.asking import Ask, ReplyForm
from data_prep.generate.context import Context, clause_lines
from data_prep.generate.spec.clauses import Spec

YesNo = Literal["yes", "no"]
UNREADABLE = "the judge's verdict cannot be read"


class DocumentVerdict(ReplyForm):
    """What a judge says of a document."""

    faithful: YesNo
    states_value: YesNo
    gives_reason: YesNo
    realistic: YesNo
    remark: str = ""

    def refusal(self) -> str | None:
        """Return why the document is refused."""
        failed = [name for name in ("faithful", "realistic") if getattr(self, name) == "no"]
        return f"judged not {' and not '.join(failed)}: {self.remark}" if failed else None


class AnswerVerdict(ReplyForm):
    """What a judge says of an answer."""

    aligned: YesNo
    informative: YesNo
    in_style: YesNo
    remark: str = ""

    def refusal(self) -> str | None:
        """Return why the answer is refused."""
        failed = [
            name.replace("_", " ")
            for name in ("aligned", "informative", "in_style")
            if getattr(self, name) == "no"
        ]
        return f"judged not {' and not '.join(failed)}: {self.remark}" if failed else None


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


Verdict = TypeVar("Verdict", DocumentVerdict, AnswerVerdict)


def judge_documents(
    context: Context, variant: str, spec: Spec, documents: Sequence[JudgedDocument]
) -> list[DocumentVerdict | None]:
    """Return a verdict for each document; None where none could be read."""
    prompts = [
        context.prompt(
            "document_judge",
            clauses=clause_lines(spec, document.clause_ids),
            document=document.text,
        )
        for document in documents
    ]
    addresses = [f"judge/{document.address}" for document in documents]
    return _judge(
        context, f"judge {variant}", addresses, prompts, DocumentVerdict, lambda v: v.refusal()
    )


def judge_answers(
    context: Context, spec: Spec, answers: Sequence[JudgedAnswer], *, style: str
) -> list[AnswerVerdict | None]:
    """Return a verdict for each answer; None where none could be read."""
    criteria = context.prompt(f"criteria_{style}")
    prompts = [
        context.prompt(
            "answer_judge",
            clauses=clause_lines(spec, answer.clause_ids),
            question=answer.question,
            reasoning=answer.reasoning,
            answer=answer.answer,
            criteria=criteria,
        )
        for answer in answers
    ]
    addresses = [f"judge/{answer.address}" for answer in answers]
    return _judge(
        context, "judge answers", addresses, prompts, AnswerVerdict, lambda v: v.refusal()
    )


def _judge(
    context: Context,
    step: str,
    addresses: Sequence[str],
    prompts: Sequence[str],
    form: type[Verdict],
    refusal: Callable[[Verdict], str | None],
) -> list[Verdict | None]:
    asks = [Ask(address, prompt) for address, prompt in zip(addresses, prompts, strict=True)]
    verdicts = context.asker.read(step, asks, form, temperature=0.0, is_judged=True)
    again = [place for place, ask in enumerate(asks) if _is_judged_twice(context, ask.address)]
    repeated = context.asker.read(
        f"{step}, again",
        [Ask(f"{asks[place].address}/again", asks[place].prompt) for place in again],
        form,
        temperature=0.0,
        is_judged=True,
    )
    same = 0
    for place, second in zip(again, repeated, strict=True):
        first = verdicts[place]
        same += _decision(first, refusal) == _decision(second, refusal)
    context.asker.counts.agreement[step] = (len(again), same)
    return verdicts


def _decision(verdict: Verdict | None, refusal: Callable[[Verdict], str | None]) -> str:
    if verdict is None:
        return UNREADABLE
    return "refused" if refusal(verdict) else "kept"


def _is_judged_twice(context: Context, address: str) -> bool:
    digest = hashlib.sha256(f"{context.config.seed}:{address}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < context.config.gates.judged_twice
