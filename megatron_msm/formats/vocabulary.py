"""Whether every token has a row of the embedding. No torch.

A token without one would be looked up among the rows that pad the vocabulary for tensor
parallelism: trained, and dropped by the export.
"""

from pathlib import Path

import orjson

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.json_types import JsonValue
from megatron_msm.formats.tokenizer_files import TokenizerFiles

_SHOWN = 5


def check_tokenizer_fits(tokenizer: TokenizerFiles, num_rows: int) -> None:
    """Compare a tokenizer with the embedding of its model.

    Args:
        tokenizer: The model's.
        num_rows: Rows of the embedding, `vocab_size` of config.json.

    Raises:
        CheckpointError: There are more ids than rows.
    """
    if tokenizer.vocab_size <= num_rows:
        return
    added = {index: text for text, index in tokenizer.added_tokens.items() if index >= num_rows}
    names = ", ".join(f"{added[index]!r} ({index})" for index in sorted(added)[:_SHOWN])
    raise CheckpointError(
        f"{tokenizer.path}: has ids up to {tokenizer.vocab_size - 1}, and the model's embedding "
        f"{num_rows} rows (vocab_size in config.json)"
        + (f"; added tokens without a row: {names}" if names else "")
        + ". Copy the tokenizer that the model was trained with, remove the tokens, or give the "
        "model rows for them (transformers: resize_token_embeddings)."
    )


def check_tokenizer_fits_its_model(tokenizer: TokenizerFiles) -> None:
    """Do the same where the tokenizer lies in the folder of a model.

    Raises:
        CheckpointError: There are more ids than rows.
    """
    num_rows = _rows_of_model(tokenizer.path.parent)
    if num_rows is not None:
        check_tokenizer_fits(tokenizer, num_rows)


def _rows_of_model(folder: Path) -> int | None:
    """Return `vocab_size` of config.json; None without one, which is another program's to say."""
    try:
        config: JsonValue = orjson.loads((folder / "config.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    num_rows = config.get("vocab_size") if isinstance(config, dict) else None
    return num_rows if isinstance(num_rows, int) else None
