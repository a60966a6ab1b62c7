"""Forced choice by log-probability: which of two answers does a model find likelier?

Own code, where this project else uses a harness, for what neither does: lm-evaluation-harness's
multiple choice asks each item in one order only, and a small model's answer is mostly position;
Inspect scores log-probabilities through a server that returns them, which a CPU node does not have.
Given up for it: batching over nodes, caching, log viewers. Nothing is sampled, so there is no seed.
"""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from evals.models.hf import OpenModel, check_folder, open_model, resolve_device
from evals.models.log_probabilities import Continuation, ContinuationScore, score_continuations
from evals.tasks.choice.items import ItemSet, load_items
from evals.tasks.choice.prompt import (
    PROMPT_TEMPLATE,
    PROTOCOL_NAME,
    PROTOCOL_VERSION,
    SETTINGS,
    ItemPrompts,
    build_prompts,
    check_no_control_tokens,
    protocol_sha256,
)
from evals.tasks.choice.result import (
    AnswerScore,
    ChoiceResult,
    ItemRow,
    ItemsRecord,
    OrderScore,
    Protocol,
    build_row,
    direction_text,
    summarise,
    summarise_tiers,
)
from megatron_msm.errors import DataFormatError

Progress = Callable[[int, int], None]
"""Called with the sequences scored so far, and in all."""

SEQUENCES_PER_ITEM = 4
"""Two orders, two answers."""


def run_choice(
    model_folder: Path,
    items_path: Path,
    *,
    split: str = "test",
    target: str | None = None,
    batch_size: int = 8,
    dtype: str = "bf16",
    device: str = "auto",
    label: str | None = None,
    on_progress: Progress = lambda done, total: None,
) -> ChoiceResult:
    """Ask a model all items of a split.

    Args:
        model_folder: A Hugging Face folder with a chat template.
        items_path: The item file.
        split: Which items.
        target: The label that positive log-odds speak for; the file's first without it.
        batch_size: Sequences in one forward pass.
        dtype: `bf16` or `fp32`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        label: The model's name in tables.
        on_progress: Called after each batch.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    started = time.monotonic()
    items = load_items(items_path, split=split, target=target)
    check_no_control_tokens(items.items, check_folder(model_folder).control_tokens)
    torch_device = resolve_device(device)
    opened = open_model(model_folder, dtype=dtype, device=torch_device, label=label)
    scoring_started = time.monotonic()
    rows = score_items(opened, items, batch_size=batch_size, on_progress=on_progress)
    scoring_s = time.monotonic() - scoring_started
    return ChoiceResult(
        protocol=_protocol(dtype),
        direction=direction_text(items.target, items.other),
        target=items.target,
        other=items.other,
        model=opened.record,
        items=ItemsRecord(path=str(items_path.resolve()), sha256=items.sha256, split=split),
        n=len(rows),
        overall=summarise(rows),
        tiers=summarise_tiers(rows),
        runtime={
            "device": str(torch_device),
            "batch_size": batch_size,
            "seconds": round(time.monotonic() - started, 3),
            "scoring_seconds_per_item": round(scoring_s / len(rows), 4),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        },
        rows=tuple(rows),
    )


def score_items(
    opened: OpenModel,
    items: ItemSet,
    *,
    batch_size: int,
    on_progress: Progress = lambda done, total: None,
) -> list[ItemRow]:
    """Score both answers of each item in both orders.

    Raises:
        DataFormatError: An item is longer than the model's context, or an answer has no tokens.
    """
    prompts = [
        build_prompts(item, opened.tokenizer, target=items.target, other=items.other)
        for item in items.items
    ]
    requests = [request for item in prompts for pair in item for request in pair]
    _check_lengths(items, prompts, opened.max_length)
    num_done = 0

    def count(num_rows: int) -> None:
        nonlocal num_done
        num_done += num_rows
        on_progress(num_done, len(requests))

    scores = score_continuations(opened.model, requests, batch_size=batch_size, on_scored=count)
    rows = []
    for position, item in enumerate(items.items):
        start = position * SEQUENCES_PER_ITEM
        orders = (
            _order(items.target, *scores[start : start + 2]),
            _order(items.other, *scores[start + 2 : start + 4]),
        )
        rows.append(build_row(orders, item_id=item.id, tier=item.tier, domain=item.domain))
    return rows


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
        requests: list[Continuation] = [request for pair in item_prompts for request in pair]
        if not all(request.answer_ids for request in requests):
            raise DataFormatError(
                f"{items.path}: item {item.id!r}: the tokenizer makes no token of an option's "
                "text. Write the option in characters that the model knows."
            )
        longest = max(len(request.prompt_ids) + len(request.answer_ids) for request in requests)
        if max_length is not None and longest > max_length:
            raise DataFormatError(
                f"{items.path}: item {item.id!r} is {longest} tokens long, and the model's context "
                f"is {max_length}. Shorten its question or options."
            )


def _protocol(dtype: str) -> Protocol:
    return Protocol(
        name=PROTOCOL_NAME,
        version=PROTOCOL_VERSION,
        sha256=protocol_sha256(dtype=dtype),
        prompt_template=PROMPT_TEMPLATE,
        settings=SETTINGS,
        dtype=dtype,
    )
