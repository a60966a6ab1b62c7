"""What a model writes by itself when it always takes the likeliest token.

transformers takes settings from the model's folder, a repetition penalty among them. Here they are
left out, so that models are compared and not their settings.
"""

from collections.abc import Callable, Sequence

import torch

from evals.models.continuations import Ids, pad_left
from evals.models.hf import OpenModel


def continue_greedily(
    opened: OpenModel,
    starts: Sequence[Ids],
    *,
    new_tokens: int,
    batch_size: int,
    on_written: Callable[[int], None] = lambda num_rows: None,
) -> list[Ids]:
    """Return what follows each start, up to a token that ends a text, which is left out.

    Args:
        opened: The model.
        starts: Token ids to go on from.
        new_tokens: How many to write at most.
        batch_size: Rows in one forward pass; it changes results by rounding only.
        on_written: Called after each batch with its number of rows.
    """
    ends = _ends(opened)
    order = sorted(range(len(starts)), key=lambda n: (-len(starts[n]), starts[n]))
    written: dict[int, Ids] = {}
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        rows = _write(opened, [starts[n] for n in chosen], new_tokens, ends)
        written |= dict(zip(chosen, rows, strict=True))
        on_written(len(chosen))
    return [written[n] for n in range(len(starts))]


def _ends(opened: OpenModel) -> set[int]:
    named = [opened.tokenizer_files.eos_id, opened.model.config.eos_token_id]
    flat = [each for one in named for each in (one if isinstance(one, list) else [one])]
    return {each for each in flat if isinstance(each, int)}


def _write(opened: OpenModel, starts: Sequence[Ids], new_tokens: int, ends: set[int]) -> list[Ids]:
    model = opened.model
    settings = model.generation_config.__class__(
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=min(ends, default=0),
    )
    ids_BS, mask_BS = pad_left(starts)
    kept, model.generation_config = model.generation_config, settings
    try:
        with torch.inference_mode():
            whole_BS = model.generate(
                ids_BS.to(model.device),
                attention_mask=mask_BS.to(model.device),
                generation_config=settings,
            )
    finally:
        model.generation_config = kept
    rows = whole_BS[:, ids_BS.shape[1] :].tolist()
    return [_until(row, ends) for row in rows]


def _until(row: list[int], ends: set[int]) -> Ids:
    end = next((n for n, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:end])
