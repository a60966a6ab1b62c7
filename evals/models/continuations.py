"""What is scored, and what of a model is used to score it.

Tensor suffixes in this folder: B rows of a batch, S padded length, T longest answer, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from transformers.cache_utils import Cache
    from transformers.modeling_outputs import CausalLMOutputWithPast

Ids = tuple[int, ...]
"""Token ids of one row."""


class Continuation(NamedTuple):
    """A prompt and what is scored after it, as token ids; neither may be empty."""

    prompt_ids: Ids
    answer_ids: Ids

    @property
    def num_tokens(self) -> int:
        """Tokens of both together."""
        return len(self.prompt_ids) + len(self.answer_ids)


Item = Sequence[Continuation]
"""Continuations whose prompts begin alike."""


class ContinuationScore(NamedTuple):
    """Natural-log probability of a continuation given its prompt."""

    sum_logprob: float
    num_tokens: int

    @property
    def mean_logprob(self) -> float:
        """Per token: a longer answer is not less likely for its length alone."""
        return self.sum_logprob / self.num_tokens


class CausalModel(Protocol):
    """What of a transformers causal language model is used."""

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        logits_to_keep: int,
        use_cache: bool,
        **cache: "Cache | None",
    ) -> "CausalLMOutputWithPast":
        """Run the model after what the cache holds; return an object with `logits`.

        They are those of the kept positions, `[B, kept, V]`.
        """


class Padded(NamedTuple):
    """Rows of token ids, right-aligned: int64 `[B, longest]`; padding has id 0 and mask 0."""

    ids: torch.Tensor
    mask: torch.Tensor


def pad_left(rows: Sequence[Ids]) -> Padded:
    """Right-align rows of token ids."""
    longest = max(len(row) for row in rows)
    ids = [[0] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return Padded(torch.tensor(ids), torch.tensor(mask))


def sums_of_answers(logits_BTV: torch.Tensor, answers: Sequence[Ids]) -> list[float]:
    """Return each answer's log-probability.

    Args:
        logits_BTV: `logits_BTV[:, t]` predicts column t of the answers, padded on the left.
        answers: Token ids of each row.
    """
    ids_BT, mask_BT = pad_left(answers)
    logprobs_BTV = torch.log_softmax(logits_BTV.float(), dim=-1)
    index_BT1 = ids_BT.to(logits_BTV.device).unsqueeze(-1)
    logprobs_BT = logprobs_BTV.gather(-1, index_BT1).squeeze(-1).double().cpu()
    sums: list[float] = torch.where(mask_BT.bool(), logprobs_BT, 0.0).sum(dim=1).tolist()
    return sums
