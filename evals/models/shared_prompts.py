"""Log-probabilities with the work of a prompt shared between all that follows it.

A batch goes through the model in four passes, each continuing the keys and values of the last:

    root      what all prompts begin with, such as the system turn; once for all batches
    stems     what an item's prompts begin with: one row an item
    prompts   the rest of each different prompt
    answers   all but each answer's last token, whose prediction is not needed

Rows of a pass are padded on the left and the padding is masked, so a row's slots in the cache may
have gaps; positions are counted without them. Only plain attention over the whole past allows that
(`can_share`): a sliding window counts slots, and a recurrent state forgets no padding.
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TypeVar

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from evals.models.continuations import (
    CausalModel,
    Ids,
    Item,
    pad_left,
    sums_of_answers,
)

Part = TypeVar("Part")
CACHE = (
    "cache"
    if "cache" in (each.name for each in fields(CausalLMOutputWithPast))
    else "past_key_values"
)
"""What transformers calls it: the second until 5.24."""


def can_share(model: CausalModel) -> bool:
    """Tell whether the model keeps keys and values of all its past, and nothing else."""
    token = torch.zeros((1, 1), dtype=torch.int64, device=model.device)
    with torch.inference_mode():
        output = model(
            input_ids=token,
            attention_mask=token + 1,
            position_ids=token,
            logits_to_keep=1,
            use_cache=True,
        )
    cache = getattr(output, CACHE, None)
    if cache is None or type(cache) is not DynamicCache:
        return False
    return all(type(layer) is DynamicLayer for layer in cache.layers)


@dataclass(frozen=True)
class _Past:
    """Rows that have been through the model."""

    cache: DynamicCache | None
    mask_BS: torch.Tensor
    """1 where a slot of the cache holds a token, 0 where it holds padding."""

    def of_rows(self, rows: Sequence[int]) -> "_Past":
        """Return these rows, each as often as it is named."""
        index = torch.tensor(rows)
        cache = copy.copy(self.cache)
        if cache is not None:
            cache.layers = [copy.copy(layer) for layer in cache.layers]
            cache.reorder_cache(index)  # makes new tensors; this cache's own stay as they are
        return _Past(cache, self.mask_BS[index])


class SharedPrompts:
    """Scores items that have the same root."""

    def __init__(self, model: CausalModel, items: Sequence[Item]) -> None:
        """Run the root.

        Args:
            model: One that can share.
            items: All that will be scored.
        """
        self._model = model
        self._root = _common_prefix({one.prompt_ids for item in items for one in item})
        self._past = _Past(None, torch.zeros((1, 0), dtype=torch.int64))
        if self._root:
            self._past, _ = self._run(self._past, [self._root], num_kept=1)

    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the log-probability of each continuation, item after item."""
        prompts = [sorted({one.prompt_ids for one in item}) for item in items]
        stems = [_common_prefix(of_item) if len(of_item) > 1 else self._root for of_item in prompts]
        past = self._past.of_rows([0] * len(items))
        if any(len(stem) > len(self._root) for stem in stems):
            past, _ = self._run(past, [stem[len(self._root) :] for stem in stems], num_kept=1)

        past = past.of_rows([n for n, of_item in enumerate(prompts) for _ in of_item])
        rest = [row[len(stems[n]) :] for n, of_item in enumerate(prompts) for row in of_item]
        past, first_logits_B1V = self._run(past, rest, num_kept=1)

        number = {(n, row): at for at, (n, row) in enumerate(_numbered(prompts))}
        asked = [(number[n, one.prompt_ids], one.answer_ids) for n, one in _numbered(items)]
        rows, answers = [row for row, _ in asked], [answer for _, answer in asked]
        sums = sums_of_answers(first_logits_B1V[rows], [answer[:1] for answer in answers])
        longest = max(len(answer) for answer in answers) - 1
        if longest:
            inputs = [answer[:-1] for answer in answers]
            _, logits_BTV = self._run(past.of_rows(rows), inputs, num_kept=longest)
            further = sums_of_answers(logits_BTV, [answer[1:] for answer in answers])
            sums = [first + rest for first, rest in zip(sums, further, strict=True)]
        return sums

    def _run(
        self, past: _Past, rows: Sequence[Ids], *, num_kept: int
    ) -> tuple[_Past, torch.Tensor]:
        """Continue each row of the past; the past's cache is used up. Return logits `[B, T, V]`."""
        ids_BS, mask_BS = pad_left(rows)
        positions_BS = past.mask_BS.sum(1, keepdim=True) + mask_BS.cumsum(1) - 1
        mask_BS = torch.cat([past.mask_BS, mask_BS], dim=1)
        device = self._model.device
        with torch.inference_mode():
            output = self._model(
                input_ids=ids_BS.to(device),
                attention_mask=mask_BS.to(device),
                position_ids=positions_BS.clamp(min=0).to(device),
                logits_to_keep=num_kept,
                use_cache=True,
                **{CACHE: past.cache},
            )
        return _Past(getattr(output, CACHE), mask_BS), output.logits


def _numbered(items: Sequence[Sequence[Part]]) -> list[tuple[int, Part]]:
    return list(chain.from_iterable([(n, one) for one in item] for n, item in enumerate(items)))


def _common_prefix(prompts: Collection[Ids]) -> Ids:
    """Return what all begin with, so that at least one token of each is left."""
    length = min(map(len, prompts)) - 1
    first, *others = prompts
    while any(other[:length] != first[:length] for other in others):
        length -= 1
    return first[:length]
