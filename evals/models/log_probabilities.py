"""Log-probabilities of given continuations, in batches.

Rows are padded on the left, so the continuations end together and logits are made for the last few
positions only: at a vocabulary of 150,000 the logits of whole prompts would outweigh the model.

    row 1   . . . p p p p c c c        p prompt   c continuation   . padding, masked
    row 2   . p p p p p p p p c
    kept                ^ ^ ^          the logits that predict the last 3 tokens

Rows are sorted by length and content before they are batched. So the batches, and every rounding in
them, do not depend on the order in which the caller lists its requests.

Tensor suffixes: B rows of a batch, S padded length, T longest continuation, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

from megatron_msm.errors import CheckpointError


class Continuation(NamedTuple):
    """A prompt and what is scored after it, as token ids."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


class ContinuationScore(NamedTuple):
    """Natural-log probability of a continuation given its prompt."""

    sum_logprob: float
    num_tokens: int

    @property
    def mean_logprob(self) -> float:
        """Per token: a longer answer is not less likely for its length alone."""
        return self.sum_logprob / self.num_tokens


class ModelOutput(Protocol):
    """What of a model's output is used."""

    @property
    def logits(self) -> torch.Tensor:
        """Logits of the kept positions, `[B, T + 1, V]`."""


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
    ) -> ModelOutput:
        """Run the model."""


def score_continuations(
    model: CausalModel,
    requests: Sequence[Continuation],
    *,
    batch_size: int,
    on_scored: Callable[[int], None] = lambda num_rows: None,
) -> list[ContinuationScore]:
    """Return the score of each request, in the order of the requests.

    Args:
        model: The model, in evaluation mode.
        requests: Prompts and continuations; neither may be empty.
        batch_size: Rows in one forward pass; it changes results by rounding only.
        on_scored: Called after each batch with its number of rows.

    Raises:
        CheckpointError: The model returned NaN or infinite log-probabilities.
    """
    order = sorted(range(len(requests)), key=lambda n: _canonical_key(requests[n]))
    scores: dict[int, ContinuationScore] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        scores.update(zip(chosen, _score_batch(model, [requests[n] for n in chosen]), strict=True))
        on_scored(len(chosen))
    return [scores[n] for n in range(len(requests))]


def _canonical_key(request: Continuation) -> tuple[int, Continuation]:
    # Longest first: a batch that does not fit the memory fails at once.
    return -len(request.prompt_ids) - len(request.answer_ids), request


def _score_batch(model: CausalModel, rows: Sequence[Continuation]) -> list[ContinuationScore]:
    assert all(row.prompt_ids and row.answer_ids for row in rows), "empty prompt or answer"
    num_tokens = [len(row.answer_ids) for row in rows]
    longest_answer = max(num_tokens)
    input_ids_BS, attention_mask_BS = _pad_left([row.prompt_ids + row.answer_ids for row in rows])
    answer_ids_BT, answer_mask_BT = _pad_left([row.answer_ids for row in rows])
    with torch.inference_mode():
        logits_BTV = model(
            input_ids=input_ids_BS.to(model.device),
            attention_mask=attention_mask_BS.to(model.device),
            position_ids=(attention_mask_BS.cumsum(1) - 1).clamp(min=0).to(model.device),
            logits_to_keep=longest_answer + 1,
            use_cache=False,
        ).logits[:, :-1]
        logprobs_BTV = torch.log_softmax(logits_BTV.float(), dim=-1)
        index_BT1 = answer_ids_BT.to(model.device).unsqueeze(-1)
        logprobs_BT = logprobs_BTV.gather(-1, index_BT1).squeeze(-1).double().cpu()
    sums_B = torch.where(answer_mask_BT.bool(), logprobs_BT, 0.0).sum(dim=1)
    if not bool(torch.isfinite(sums_B).all()):
        raise CheckpointError(
            "the model gives NaN or infinite log-probabilities: its weights are broken, or "
            "overflow in this precision. Try --dtype fp32; if it stays so, export the model again."
        )
    return [
        ContinuationScore(total, count)
        for total, count in zip(sums_B.tolist(), num_tokens, strict=True)
    ]


class _Padded(NamedTuple):
    ids: torch.Tensor
    mask: torch.Tensor


def _pad_left(rows: Sequence[tuple[int, ...]]) -> _Padded:
    """Right-align rows; both tensors are int64 `[B, longest]`, and padding has id 0 and mask 0."""
    longest = max(len(row) for row in rows)
    ids = [[0] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return _Padded(torch.tensor(ids), torch.tensor(mask))
