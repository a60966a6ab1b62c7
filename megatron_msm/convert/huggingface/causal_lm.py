"""A Hugging Face folder opened by transformers: local files, safetensors, no remote code.

What transformers would warn about and go on, stops here: weights that the folder lacks would be
random, and numbers of such a model would only look like results.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from megatron_msm.errors import CheckpointError, MissingExtraError

_KINDS = ("missing_keys", "mismatched_keys", "unexpected_keys")


class CausalLM(NamedTuple):
    """A model and its tokenizer, as transformers has them."""

    model: Any
    """In evaluation mode, on the CPU."""
    tokenizer: Any


def open_causal_lm(folder: Path, *, dtype: Any) -> CausalLM:
    """Load model and tokenizer.

    Args:
        folder: With config.json, tokenizer and safetensors.
        dtype: Of the weights: torch's, or `auto` for that of the folder.

    Raises:
        CheckpointError: transformers cannot load it, or its weights are not those of config.json.
        MissingExtraError: transformers is not installed.
    """
    with transformers_for(folder) as transformers:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    check_loaded(folder, loading)
    return CausalLM(model.eval(), tokenizer)


def check_loaded(folder: Path, loading: Mapping[str, Any]) -> None:
    """Refuse what transformers only warns of.

    Raises:
        CheckpointError: Weights are missing, of another shape, or no part of the model.
    """
    for kind in _KINDS:
        names = sorted(map(str, loading.get(kind) or ()))
        if names:
            raise CheckpointError(
                f"{folder}: config.json and the weights do not fit together, "
                f"{kind.replace('_', ' ')}: {names[0]} and {len(names) - 1} more. Weights that "
                "are not there would be random. Export or download the model again."
            )


@contextmanager
def transformers_for(folder: Path) -> Iterator[Any]:
    """Give transformers, silent; say which folder it cannot read.

    Raises:
        CheckpointError: It cannot.
        MissingExtraError: It is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtraError(
            feature="reading a model with transformers", extra="evals"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield transformers
    except Exception as error:  # whatever a broken file makes of transformers
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            f"{folder}: transformers cannot load it (version {transformers.__version__}, "
            f"{type(error).__name__}: {reason}). Check that the download or export is complete."
        ) from error
