"""What `transformers` computes with two model folders, on the same prompts."""

from pathlib import Path
from typing import Any

import torch

from megatron_msm.errors import CheckpointError, MissingExtraError
from megatron_msm.formats.tokenizer_files import load_tokenizer, read_tokenizer_files

# English, code, digits, another script: tokens from different parts of a vocabulary.
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "In 1969, 3 + 4 * 5 =",
    "こんにちは, 世界! Wie geht es dir?",
)


def largest_logit_difference(one: Path, other: Path) -> float:
    """Return the largest absolute difference of two models' logits, computed in float32.

    The models are loaded one after the other. Each folder's own tokenizer encodes the prompts.

    Raises:
        CheckpointError: A folder does not load, or the two encode a prompt differently.
        MissingExtraError: transformers is not installed.
    """
    tokens = [_encode(folder) for folder in (one, other)]
    if tokens[0] != tokens[1]:
        raise CheckpointError(f"{other}: its tokenizer encodes text unlike that of {one}.")
    expected, found = (_logits(folder, tokens[0]) for folder in (one, other))
    return max(float((a_TV - b_TV).abs().max()) for a_TV, b_TV in zip(expected, found, strict=True))


def _encode(folder: Path) -> list[list[int]]:
    tokenizer = load_tokenizer(read_tokenizer_files(folder), control_tokens_as_text=True)
    encoded = (tokenizer.encode(prompt, add_special_tokens=False) for prompt in PROMPTS)
    return [encoding.ids for encoding in encoded]


@torch.no_grad()
def _logits(folder: Path, prompts: list[list[int]]) -> list[torch.Tensor]:
    """Return one (tokens, vocabulary) tensor a prompt."""
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise MissingExtraError(feature="comparing logits", extra="evals") from None
    disable_progress_bar()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: transformers cannot load it: {error}") from error
    return [model(torch.tensor([tokens])).logits[0] for tokens in prompts]
