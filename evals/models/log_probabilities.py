"""Log-probabilities of given continuations, in batches.

An item is a few continuations whose prompts begin alike: the answers to one question, in one or
more wordings. `shared_prompts` does their common work once; a model whose state it cannot share is
asked for each continuation by itself. Both give the same numbers, to rounding.

Rows are padded on the left, so the continuations end together and logits are made for the last few
positions only: at a vocabulary of 150,000 the logits of whole prompts would outweigh the model.

    row 1   . . . p p p p c c c        p prompt   c continuation   . padding, masked
    row 2   . p p p p p p p p c
    kept                ^ ^ ^          the logits that predict the last 3 tokens

Items are sorted by length and content before they are batched, and what is in an item before it is
scored. So the batches, and every rounding in them, do not depend on the order in which the caller
lists anything.
"""

import math
from collections.abc import Callable, Sequence

import torch

from evals.models.continuations import (
    CausalModel,
    Continuation,
    ContinuationScore,
    Item,
    pad_left,
    sums_of_answers,
)
from evals.models.shared_prompts import SharedPrompts, can_share
from megatron_msm.errors import CheckpointError


def score_continuations(
    model: CausalModel,
    items: Sequence[Item],
    *,
    batch_size: int,
    on_scored: Callable[[int], None] = lambda num_items: None,
) -> list[list[ContinuationScore]]:
    """Return the score of each continuation, item by item in the order given.

    Args:
        model: The model, in evaluation mode.
        items: Continuations that are scored together.
        batch_size: Continuations in one forward pass, and at least one item; it changes results by
            rounding only.
        on_scored: Called after each batch with its number of items.

    Raises:
        CheckpointError: The model returned NaN or infinite log-probabilities.
    """
    for one in (one for item in items for one in item):
        assert one.prompt_ids, "empty prompt"
        assert one.answer_ids, "empty answer"
    sorted_items = [sorted(item) for item in items]
    order = sorted(range(len(items)), key=lambda n: _canonical_key(sorted_items[n]))
    shared = SharedPrompts(model, sorted_items) if can_share(model) else None
    scores: dict[int, dict[Continuation, ContinuationScore]] = {}
    for chosen in _batches(order, sorted_items, batch_size):
        of_batch = [sorted_items[n] for n in chosen]
        flat = [one for item in of_batch for one in item]
        sums = shared.score(of_batch) if shared else _score_each(model, flat)
        _check_finite(sums)
        found = iter(
            ContinuationScore(total, len(one.answer_ids))
            for total, one in zip(sums, flat, strict=True)
        )
        scores |= {n: {one: next(found) for one in sorted_items[n]} for n in chosen}
        on_scored(len(chosen))
    return [[scores[n][one] for one in item] for n, item in enumerate(items)]


def _canonical_key(item: Item) -> tuple[int, Item]:
    # Longest first: a batch that does not fit the memory fails at once.
    return -max(one.num_tokens for one in item), item


def _batches(order: Sequence[int], items: Sequence[Item], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    for n in order:
        held = sum(len(items[m]) for m in batches[-1])
        if batches[-1] and held + len(items[n]) > batch_size:
            batches.append([])
        batches[-1].append(n)
    return batches


def _score_each(model: CausalModel, rows: Sequence[Continuation]) -> list[float]:
    ids_BS, mask_BS = pad_left([row.prompt_ids + row.answer_ids for row in rows])
    with torch.inference_mode():
        logits_BTV = model(
            input_ids=ids_BS.to(model.device),
            attention_mask=mask_BS.to(model.device),
            position_ids=(mask_BS.cumsum(1) - 1).clamp(min=0).to(model.device),
            logits_to_keep=max(len(row.answer_ids) for row in rows) + 1,
            use_cache=False,
        ).logits[:, :-1]
    return sums_of_answers(logits_BTV, [row.answer_ids for row in rows])


def _check_finite(sums: Sequence[float]) -> None:
    if not all(math.isfinite(total) for total in sums):
        raise CheckpointError(
            "the model gives NaN or infinite log-probabilities: its weights are broken, or "
            "overflow in this precision. Try --dtype fp32; if it stays so, export the model again."
        )
