from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evals.models.log_probabilities import (
    CausalModel,
    Continuation,
    ContinuationScore,
    score_continuations,
)
from megatron_msm.errors import CheckpointError

REQUESTS = [
    Continuation((5, 6, 7), (8, 9)),
    Continuation((5,), (8, 9, 10, 11, 12)),
    Continuation((3, 1, 4, 1, 5, 9, 2, 6), (5,)),
    Continuation((20, 21, 22, 23), (24, 25, 26)),
    Continuation((5, 6, 7), (9, 8)),
]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def naive_score(model: Any, request: Continuation) -> ContinuationScore:
    """One sequence, no padding, all logits, token by token."""
    ids = torch.tensor([request.prompt_ids + request.answer_ids])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].double()
    total = 0.0
    for number, token in enumerate(request.answer_ids):
        position = len(request.prompt_ids) + number - 1
        total += float(logits[position, token] - torch.logsumexp(logits[position], dim=0))
    return ContinuationScore(total, len(request.answer_ids))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batched_scores_equal_the_naive_ones(model: Any, batch_size: int) -> None:
    scores = score_continuations(model, REQUESTS, batch_size=batch_size)
    for score, request in zip(scores, REQUESTS, strict=True):
        naive = naive_score(model, request)
        assert score.num_tokens == naive.num_tokens
        assert score.sum_logprob == pytest.approx(naive.sum_logprob, abs=2e-5)
        assert score.mean_logprob == pytest.approx(naive.mean_logprob, abs=2e-5)


def test_the_order_of_requests_changes_no_bit(model: Any) -> None:
    forward = score_continuations(model, REQUESTS, batch_size=2)
    backward = score_continuations(model, REQUESTS[::-1], batch_size=2)
    assert forward == backward[::-1]


def test_progress_adds_up(model: Any) -> None:
    seen: list[int] = []
    score_continuations(model, REQUESTS, batch_size=2, on_scored=seen.append)
    assert seen == [2, 2, 1]


class FixedLogits:
    """A model whose every position has the same logits."""

    device = torch.device("cpu")

    def __init__(self, logits: list[float]) -> None:
        self.fixed = torch.tensor(logits)

    def __call__(self, *, input_ids: torch.Tensor, logits_to_keep: int, **rest: Any) -> Any:
        class Output:
            logits = self.fixed.expand(input_ids.shape[0], logits_to_keep, -1)

        return Output()


def test_scores_are_natural_log_probabilities() -> None:
    model: CausalModel = FixedLogits([0.0, 0.0, 0.0, 0.0])
    (score,) = score_continuations(model, [Continuation((0,), (1, 2, 3))], batch_size=1)
    assert score.sum_logprob == pytest.approx(3 * -1.3862943611)
    assert score.mean_logprob == pytest.approx(-1.3862943611)


def test_nan_is_refused() -> None:
    model: CausalModel = FixedLogits([float("nan"), 0.0])
    with pytest.raises(CheckpointError, match="NaN"):
        score_continuations(model, [Continuation((0,), (1,))], batch_size=1)
