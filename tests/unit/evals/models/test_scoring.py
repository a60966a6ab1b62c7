from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

import evals.models.log_probabilities as log_probabilities
from evals.models.continuations import CausalModel, Continuation, ContinuationScore
from evals.models.log_probabilities import score_continuations
from evals.models.shared_prompts import can_share
from megatron_msm.errors import CheckpointError

ITEMS = [
    # Two orders of one question, two answers to each.
    [
        Continuation((9, 9, 5, 6, 7), (8, 9)),
        Continuation((9, 9, 5, 6, 7), (8,)),
        Continuation((9, 9, 5, 7, 6, 1), (8, 9)),
        Continuation((9, 9, 5, 7, 6, 1), (8,)),
    ],
    [Continuation((9, 5), (8, 9, 10, 11, 12))],
    # One prompt goes on where the other ends.
    [Continuation((9, 3, 1, 4), (5,)), Continuation((9, 3, 1, 4, 1, 5), (9, 2, 6))],
    [Continuation((9, 20, 21, 22, 23), (24, 25, 26)), Continuation((9, 20, 21, 22, 23), (24, 7))],
]
FLAT = [one for item in ITEMS for one in item]

TINY: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "initializer_range": 0.3, "head_dim": 8,
}  # fmt: skip
FAMILIES: dict[str, transformers.PretrainedConfig] = {
    "llama": transformers.LlamaConfig(**TINY),
    "qwen2": transformers.Qwen2Config(**TINY),
    "qwen3": transformers.Qwen3Config(**TINY),
    "qwen3 moe": transformers.Qwen3MoeConfig(
        **TINY, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "learned positions": transformers.GPT2Config(
        vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3
    ),
    "window": transformers.MistralConfig(**TINY, sliding_window=4),
    "alternating windows": transformers.Gemma3TextConfig(**TINY, sliding_window=4),
}
SHARES_NOT = {"window", "alternating windows"}


def random_model(family: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(FAMILIES[family], dtype=torch.float32).eval()


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


@pytest.mark.parametrize("batch_size", [1, 4, 5, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_batched_scores_equal_the_naive_ones(family: str, batch_size: int) -> None:
    model = random_model(family)
    assert can_share(model) == (family not in SHARES_NOT)
    scores = score_continuations(model, ITEMS, batch_size=batch_size)
    assert [len(of_item) for of_item in scores] == [len(item) for item in ITEMS]
    for score, one in zip((s for of_item in scores for s in of_item), FLAT, strict=True):
        naive = naive_score(model, one)
        assert score.num_tokens == naive.num_tokens
        assert score.mean_logprob == pytest.approx(naive.mean_logprob, abs=1e-5)


def test_a_prompt_goes_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are counted where they enter: the root once, each prompt's rest once."""
    model = random_model("llama")
    seen: list[int] = []

    def count(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        new = given["input_ids"].shape[1]
        seen.append(int(given["attention_mask"][:, -new:].sum()))

    model.register_forward_pre_hook(count, with_kwargs=True)
    score_continuations(model, [ITEMS[0]], batch_size=4)
    # One token asks what the model can do; then the root, of which an only item has all, no stem,
    # two rests of 2 and 3 tokens, and of the two-token answers the first token.
    assert seen == [1, 3, 5, 2]
    monkeypatch.setattr(log_probabilities, "can_share", lambda model: False)
    seen.clear()
    score_continuations(model, [ITEMS[0]], batch_size=4)
    assert sum(seen) == 28


def test_prompts_that_have_nothing_in_common() -> None:
    items = [[Continuation((1, 2), (3,))], [Continuation((4,), (5, 6))]]
    model = random_model("qwen2")
    for of_item, item in zip(score_continuations(model, items, batch_size=8), items, strict=True):
        assert of_item[0].sum_logprob == pytest.approx(naive_score(model, item[0])[0], abs=1e-5)


def test_the_order_of_items_and_in_them_changes_no_bit() -> None:
    model = random_model("llama")
    forward = score_continuations(model, ITEMS, batch_size=5)
    turned = score_continuations(model, [item[::-1] for item in ITEMS[::-1]], batch_size=5)
    assert forward == [of_item[::-1] for of_item in turned[::-1]]


def test_progress_adds_up() -> None:
    seen: list[int] = []
    score_continuations(random_model("llama"), ITEMS, batch_size=4, on_scored=seen.append)
    assert sum(seen) == len(ITEMS)
    assert len(seen) > 1


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
    ((score,),) = score_continuations(model, [[Continuation((0,), (1, 2, 3))]], batch_size=1)
    assert score.sum_logprob == pytest.approx(3 * -1.3862943611)
    assert score.mean_logprob == pytest.approx(-1.3862943611)


def test_nan_is_refused() -> None:
    model: CausalModel = FixedLogits([float("nan"), 0.0])
    with pytest.raises(CheckpointError, match="NaN"):
        score_continuations(model, [[Continuation((0,), (1,))]], batch_size=1)
