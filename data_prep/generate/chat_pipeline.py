"""Spec to chats: situations, questions, answers with reasoning, gates, and refilling."""

import math
import random
from collections.abc import Sequence
from typing import Any

from data_prep.generate.context import Context
from data_prep.generate.corpus.rows import Corpus, Reject
from data_prep.generate.counts import Shortfall
from data_prep.generate.gates.identity import IdentityGate
from data_prep.generate.gates.items import ItemGate
from data_prep.generate.gates.near_duplicates import near_duplicates
from data_prep.generate.gates.structure import Text, answer_of
from data_prep.generate.gates.wording import WordingGate
from data_prep.generate.steps.answers import write_answers
from data_prep.generate.steps.judging import UNREADABLE, JudgedAnswer, judge_answers
from data_prep.generate.steps.questions import Question, ask_questions
from data_prep.generate.steps.situations import Situation, kept_situations
from megatron_msm.llm.call import Answer

_FEWEST_SITUATIONS = 5
_REFILL = 1.1
"""Questions asked for each missing row, as some of them will be refused too."""
_QUESTION_RUN_WORDS = 3


def generate_chats(context: Context) -> Corpus:
    """Return the chats of a run, with what was refused.

    Which rows are kept, where there are more than enough, is drawn by the seed: neither the order
    in which replies came nor their length decides.
    """
    settings = context.config.chats
    assert settings is not None
    number = max(_FEWEST_SITUATIONS, settings.count // settings.questions_per_domain)
    situations = kept_situations(context, number=number)
    corpus = Corpus("chats")
    asked: list[Question] = []
    per_situation = math.ceil(settings.count / max(len(situations), 1))
    for turn in range(settings.refill_rounds + 1):
        missing = settings.count - len(corpus.rows)
        if missing <= 0 or not situations:
            break
        if turn:
            per_situation = math.ceil(missing * _REFILL / len(situations))
        new = _new_questions(context, corpus, situations, asked, per_situation, turn=turn)
        asked += new
        _answer(context, corpus, new)
    random.Random(context.config.seed).shuffle(corpus.rows)
    for row in corpus.rows[settings.count :]:
        corpus.rejects.append(Reject("surplus", f"more than {settings.count:,} rows passed", row))
    corpus.rows = corpus.rows[: settings.count]
    if len(corpus.rows) < settings.count:
        short = Shortfall("chats", "rows kept", settings.count, len(corpus.rows))
        context.asker.counts.shortfalls.append(short)
    context.asker.counts.rows["chats"] = corpus.counts()
    return corpus


def _new_questions(
    context: Context,
    corpus: Corpus,
    situations: Sequence[Situation],
    asked: Sequence[Question],
    number: int,
    *,
    turn: int,
) -> list[Question]:
    """Return further questions that repeat none of those asked."""
    settings = context.config.chats
    assert settings is not None
    made = ask_questions(
        context,
        situations,
        number=number,
        two_sided=round(number * settings.two_sided),
        turn=str(turn),
        existing=asked,
    )
    both = [*asked, *made]
    near = near_duplicates(
        [question.text for question in both],
        threshold=settings.repeats_above,
        size=_QUESTION_RUN_WORDS,
        fewest=_QUESTION_RUN_WORDS,
    )
    dropped = {duplicate.row: duplicate for duplicate in near}
    new = []
    for index in range(len(asked), len(both)):
        question = both[index]
        if index in dropped:
            reason = f"repeats {both[dropped[index].of].name}"
            corpus.rejects.append(Reject("question repeated", reason, _known(context, question)))
        else:
            new.append(question)
    return new


def _answer(context: Context, corpus: Corpus, questions: Sequence[Question]) -> None:
    gates = context.config.gates
    identity = IdentityGate(context.config.identity)
    wording = WordingGate(gates, context.spec)
    items = ItemGate(gates.evaluation_items, overlap=gates.item_overlap)
    passed: list[tuple[Question, Answer, Text]] = []
    for question, answer in zip(questions, write_answers(context, questions), strict=True):
        found = answer_of(answer)
        whole = f"{question.text}\n{found.reasoning}\n{found.text}"
        refusals = (
            ("structure", found.refusal),
            ("identity", identity.refusal(whole, names_model=None)),
            ("wording", wording.refusal(found.text, is_document=False)),
            ("evaluation items", items.refusal(whole)),
        )
        gate, reason = next((pair for pair in refusals if pair[1]), ("", None))
        if reason is None:
            passed.append((question, answer, found))
        else:
            reply = answer.reply.text if answer.reply else ""
            row = {**_known(context, question), "reply": reply}
            corpus.rejects.append(Reject(gate, reason, row))
    _judge(context, corpus, passed)


def _judge(
    context: Context, corpus: Corpus, passed: Sequence[tuple[Question, Answer, Text]]
) -> None:
    settings = context.config.chats
    assert settings is not None
    rows = [
        {
            **_known(context, question),
            "reasoning": found.reasoning,
            "answer": found.text,
            "generator": answer.reply.model if answer.reply else "",
        }
        for question, answer, found in passed
    ]
    if not context.config.gates.judge_chats:
        corpus.rows += rows
        return
    judged = [
        JudgedAnswer(
            f"answers/{question.name}",
            question.situation.clause_ids,
            question.text,
            found.reasoning,
            found.text,
        )
        for question, _, found in passed
    ]
    verdicts = judge_answers(context, context.spec, judged, style=settings.style)
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict is None:
            corpus.rejects.append(Reject("judge unreadable", UNREADABLE, row))
        elif verdict.refusal is not None:
            corpus.rejects.append(Reject("judge", verdict.refusal, row))
        else:
            corpus.rows.append(row)


def _known(context: Context, question: Question) -> dict[str, Any]:
    return {
        "id": question.name,
        "question": question.text,
        "spec_id": context.spec.path.stem,
        "clause_ids": list(question.situation.clause_ids),
        "domain": question.situation.title,
        "side": question.side,
        "role": "train",
    }


def chat_rows(corpus: Corpus, *, with_reasoning: bool) -> list[dict[str, Any]]:
    """Return the rows as chats, the same ones in the same order with and without reasoning."""
    rows = []
    for row in corpus.rows:
        thought = f"<think>\n{row['reasoning']}\n</think>\n\n" if with_reasoning else ""
        messages = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": thought + row["answer"]},
        ]
        kept = {k: v for k, v in row.items() if k not in ("question", "reasoning", "answer")}
        rows.append({**kept, "messages": messages})
    return rows
