"""Replies sampled from an opened folder, in batches.

Each row draws from a random stream of its own, so a reply depends on its seed and not on which
other prompts it was batched with (but for rounding). That is why this is not transformers'
`generate`, whose rows share one stream: a resumed evaluation batches otherwise. A GPU of one's own
does better with a server; this is for small models, tests and machines without one.

Tensor suffixes: B rows of a batch, S padded length, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from evals.models.continuations import Ids, pad_left
from evals.models.hf import OpenModel
from megatron_msm.errors import CheckpointError

if TYPE_CHECKING:
    from transformers.cache_utils import Cache


class Prompt(NamedTuple):
    """One request."""

    ids: Ids
    """The rendered chat, up to where the reply begins."""
    seed: int
    """Seeds the row's random stream."""
    temperature: float
    """0 takes the likeliest token each time."""
    max_tokens: int


class SampledReply(NamedTuple):
    """What the model wrote."""

    text: str
    """Without the token that ended it."""
    num_tokens: int
    finish: Literal["stop", "max_tokens"]


def sample_replies(opened: OpenModel, prompts: Sequence[Prompt]) -> list[SampledReply]:
    """Return a reply to each prompt.

    Raises:
        CheckpointError: A prompt and its reply would not fit the model's context, or the model
            returned NaN.
    """
    _check_lengths(opened, prompts)
    stops = _stop_ids(opened)
    rows: list[list[int]] = [[] for _ in prompts]
    streams = [torch.Generator().manual_seed(prompt.seed) for prompt in prompts]
    ids_BS, mask_BS = pad_left([prompt.ids for prompt in prompts])
    positions_BS = (mask_BS.cumsum(1) - 1).clamp(min=0)
    # transformers 5.24 renames it; the former name works there, with a warning at each call.
    parameters = inspect.signature(opened.model.forward).parameters
    cache_name = "cache" if "cache" in parameters else "past_key_values"
    cache: Cache | None = None
    with torch.inference_mode():
        while True:
            output = opened.model(
                input_ids=ids_BS.to(opened.model.device),
                attention_mask=mask_BS.to(opened.model.device),
                position_ids=positions_BS.to(opened.model.device),
                **{cache_name: cache},
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits_BV = output.logits[:, -1].float().cpu()
            for row, prompt, stream, logits_V in zip(
                rows, prompts, streams, logits_BV, strict=True
            ):
                if not _is_finished(row, prompt, stops):
                    row.append(_draw(logits_V, prompt.temperature, stream))
            if all(map(_is_finished, rows, prompts, [stops] * len(rows))):
                break
            ids_BS = torch.tensor([[row[-1]] for row in rows])
            mask_BS = torch.cat([mask_BS, torch.ones_like(mask_BS[:, :1])], dim=1)
            positions_BS = positions_BS[:, -1:] + 1
    return [_reply(opened, row, stops) for row in rows]


def _is_finished(row: Sequence[int], prompt: Prompt, stops: frozenset[int]) -> bool:
    return len(row) >= prompt.max_tokens or bool(row and row[-1] in stops)


def _draw(logits_V: torch.Tensor, temperature: float, stream: torch.Generator) -> int:
    if not bool(torch.isfinite(logits_V).all()):
        raise CheckpointError(
            "the model gives NaN or infinite logits: its weights are broken, or overflow in this "
            "precision. Try dtype: fp32; if it stays so, export the model again."
        )
    if temperature == 0:
        return int(logits_V.argmax())
    probabilities_V = torch.softmax(logits_V / temperature, dim=-1)
    return int(torch.multinomial(probabilities_V, 1, generator=stream))


def _reply(opened: OpenModel, row: list[int], stops: frozenset[int]) -> SampledReply:
    has_ended = row[-1] in stops
    text = opened.tokenizer.decode(
        row[:-1] if has_ended else row,
        skip_special_tokens=False,
        clean_up_tokenization_spaces=False,
    )
    assert isinstance(text, str), f"decode returned {type(text)}"
    return SampledReply(text, len(row), "stop" if has_ended else "max_tokens")


def _stop_ids(opened: OpenModel) -> frozenset[int]:
    """Return the tokens that end a reply: the tokenizer's EOS and those of generation_config."""
    configured = getattr(opened.model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    found = frozenset(i for i in (*ids, opened.tokenizer_files.eos_id) if isinstance(i, int))
    if not found:
        raise CheckpointError(
            f"{opened.record.path}: neither generation_config.json nor the tokenizer names an EOS "
            "token, so no reply would end. Write `eos_token` into tokenizer_config.json."
        )
    return found


def _check_lengths(opened: OpenModel, prompts: Sequence[Prompt]) -> None:
    longest = max(prompts, key=lambda prompt: len(prompt.ids) + prompt.max_tokens)
    if opened.max_length and len(longest.ids) + longest.max_tokens > opened.max_length:
        raise CheckpointError(
            f"{opened.record.path}: a prompt of {len(longest.ids)} tokens and a reply of up to "
            f"{longest.max_tokens} do not fit the model's context of {opened.max_length}. "
            "Lower max_tokens."
        )
