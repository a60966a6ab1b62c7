"""Forced choice by log-probability: which of two answers does a model find likelier?

Own code, where this project else uses a harness, for what neither does: lm-evaluation-harness's
multiple choice asks each item in one order only, and a small model's answer is mostly position;
Inspect scores log-probabilities through a server that returns them, which a CPU node does not have.
Given up for it: batching over nodes, caching, log viewers. Nothing is sampled, so there is no seed.
"""

import time
from functools import partial

from evals.models.chat_turn import check_no_control_tokens
from evals.models.continuations import ContinuationScore
from evals.models.hf import OpenModel
from evals.models.local import LocalModel
from evals.models.log_probabilities import score_continuations
from evals.tasks.choice.items import ItemSet, load_items
from evals.tasks.choice.prompt import (
    ItemPrompts,
    build_prompts,
    choice_protocol,
)
from evals.tasks.choice.result import (
    LOG_ODDS,
    AnswerScore,
    OrderScore,
    build_row,
    choice_metrics,
    direction_text,
)
from evals.tasks.scoring import ScoringSettings, counting, scored_result
from evals.tasks.task import Progress, Work
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, Row


class ChoiceSettings(ScoringSettings):
    """A forced choice in a suite; an item is four answers."""

    split: str = "test"
    """Which items of the file."""
    target: str | None = None
    """Label that log-odds above 0 speak for; the file's first without it."""


def prepare_choice(settings: ChoiceSettings, model: LocalModel, name: str) -> Work:
    """Read the items and check them against the model's tokenizer.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    items = load_items(settings.items, split=settings.split, target=settings.target)
    for item in items.items:
        check_no_control_tokens(item.id, item.texts, model.chat_files.control_tokens)
    return partial(_ask, settings, items, model, name)


def _ask(
    settings: ChoiceSettings,
    items: ItemSet,
    model: LocalModel,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    started_s = time.monotonic()
    opened = model.opened(settings.dtype)
    scoring_started_s = time.monotonic()
    rows = score_items(opened, items, batch_size=settings.batch_size, on_progress=on_progress)
    scoring_s = time.monotonic() - scoring_started_s
    protocol = choice_protocol(items, settings.dtype, opened.record.chat_template_sha256)
    return scored_result(
        rows,
        choice_metrics(rows, target=items.target, other=items.other),
        name=name,
        protocol=protocol,
        model=model,
        settings=settings,
        items=f"{settings.items.resolve()}, split {items.split}",
        meaning=direction_text(items.target, items.other),
        headline=LOG_ODDS,
        started_s=started_s,
        runtime={"scoring_seconds_per_item": round(scoring_s / len(rows), 4)},
    )


def score_items(
    opened: OpenModel,
    items: ItemSet,
    *,
    batch_size: int,
    on_progress: Progress = lambda done, total: None,
) -> list[Row]:
    """Score both answers of each item in both orders.

    Raises:
        DataFormatError: An item is longer than the model's context, or an answer has no tokens.
    """
    prompts = [
        build_prompts(item, opened.tokenizer, target=items.target, other=items.other)
        for item in items.items
    ]
    _check_lengths(items, prompts, opened.max_length)
    scores = score_continuations(
        opened.model,
        [[*pairs.target_first, *pairs.other_first] for pairs in prompts],
        batch_size=batch_size,
        on_scored=counting(on_progress, len(prompts)),
    )
    return [
        build_row(
            (_order(items.target, *of_item[:2]), _order(items.other, *of_item[2:])),
            item_id=item.id,
            tier=item.tier,
            domain=item.domain,
            asked={
                "question": item.question,
                "target": item.option(items.target).text,
                "other": item.option(items.other).text,
            },
        )
        for item, of_item in zip(items.items, scores, strict=True)
    ]


def _order(listed_first: str, target: ContinuationScore, other: ContinuationScore) -> OrderScore:
    return OrderScore(
        listed_first=listed_first,
        target=_answer(target),
        other=_answer(other),
        log_odds=target.mean_logprob - other.mean_logprob,
    )


def _answer(score: ContinuationScore) -> AnswerScore:
    return AnswerScore(
        sum_logprob=score.sum_logprob, mean_logprob=score.mean_logprob, num_tokens=score.num_tokens
    )


def _check_lengths(items: ItemSet, prompts: list[ItemPrompts], max_length: int | None) -> None:
    for item, item_prompts in zip(items.items, prompts, strict=True):
        requests = [*item_prompts.target_first, *item_prompts.other_first]
        if not all(request.answer_ids for request in requests):
            raise DataFormatError(
                f"{items.path}: item {item.id!r}: the tokenizer makes no token of an option's "
                "text. Write the option in characters that the model knows."
            )
        longest = max(request.num_tokens for request in requests)
        if max_length is not None and longest > max_length:
            raise DataFormatError(
                f"{items.path}: item {item.id!r} is {longest} tokens long, and the model's context "
                f"is {max_length}. Shorten its question or options."
            )
