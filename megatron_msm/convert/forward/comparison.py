"""Megatron's logits beside those of transformers, and how far they may be apart."""

import multiprocessing
import random
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from megatron_msm.convert.forward import transformers_side
from megatron_msm.convert.forward.model_slice import ModelSlice, TensorReader, outer_layers
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.tokenizer_files import load_tokenizer, read_tokenizer_files
from megatron_msm.models.shape import ModelShape

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TOLERANCE = 1e-4
"""Relative, in float32. What was seen of right readings is below 1e-5, of wrong ones above 1e-3."""
_NUM_WORDS = 256
_SHORT = 48
_BEYOND = 64
"""Positions to look at behind a length at which something changes."""
LONGEST = 16384
# English, code, digits, another script: tokens from different parts of a vocabulary.
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "In 1969, 3 + 4 * 5 =",
    "こんにちは, 世界! Wie geht es dir?",
)


@dataclass(frozen=True)
class LogitDifference:
    """The position at which Megatron's logits are furthest from those of transformers."""

    relative: float
    """Norm of the difference by the norm of transformers' logits; infinite for NaN."""
    position: int
    num_positions: int
    """How long the longest sequence was."""

    @property
    def is_same(self) -> bool:
        """Whether it is a matter of rounding."""
        return self.relative <= TOLERANCE


class MegatronProcess:
    """A process in which Megatron computes; torch stays as it is in this one."""

    def __init__(self) -> None:
        # megatron-core warns on its import of every kernel that is not installed.
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=warnings.simplefilter,
            initargs=("ignore",),
        )

    def __enter__(self) -> "MegatronProcess":
        return self

    def __exit__(self, *args: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(
        self, part: ModelSlice, reader: TensorReader, prompts: list[list[int]]
    ) -> "Future[list[npt.NDArray[np.float32]]]":
        """Begin to compute the logits of prompts."""
        return self._pool.submit(_megatron_logits, part, reader, prompts)


def _megatron_logits(
    part: ModelSlice, reader: TensorReader, prompts: list[list[int]]
) -> list[npt.NDArray[np.float32]]:
    # Imported where it is used, so that only this process has megatron-core in memory.
    from megatron_msm.convert.forward.megatron_side import megatron_logits

    # As arrays: tensors would go through shared memory, of which containers have little.
    return [logits.numpy() for logits in megatron_logits(part, reader, prompts)]


def whole_model(
    process: MegatronProcess, hf_folder: Path, shape: ModelShape, reader: TensorReader
) -> LogitDifference:
    """Compare all layers on four short prompts; the folder is loaded as anyone would load it.

    Raises:
        CheckpointError: transformers cannot load the folder, or memory ran out.
        MissingExtraError: transformers is not installed.
    """
    prompts = _encode(hf_folder)
    words = tuple(sorted({token for prompt in prompts for token in prompt}))
    part = ModelSlice(shape, tuple(range(shape.num_layers)), words)
    numbers = [[words.index(token) for token in prompt] for prompt in prompts]
    return _compare(
        process.start(part, reader, numbers),
        lambda: transformers_side.logits_of_folder(hf_folder, part, numbers),
    )


def long_document(
    process: MegatronProcess,
    hf_folder: Path,
    shape: ModelShape,
    reader: TensorReader,
    read_hf: Callable[[str], torch.Tensor],
) -> LogitDifference:
    """Compare two layers on one long document.

    It reaches beyond the length before rotary embeddings were stretched, and beyond a sliding
    window, as transformers reads both, unless it would be longer than the model admits here.

    Raises:
        CheckpointError: transformers cannot make the model, or memory ran out.
        MissingExtraError: transformers is not installed.
    """
    part = _outer_part(shape)
    length = min(_long_length(transformers_side.read_config(hf_folder)), LONGEST)
    document = _document(part, min(length, shape.max_position_embeddings))
    return _compare(
        process.start(part, reader, [document]),
        lambda: transformers_side.logits_of_part(
            hf_folder, part, part.read_hf(read_hf), [document]
        ),
    )


def short_document(
    process: MegatronProcess, hf_folder: Path, shape: ModelShape, reader: TensorReader
) -> LogitDifference:
    """Compare two layers on one short document; both take their weights from `reader`.

    Raises:
        CheckpointError: transformers cannot make the model, or memory ran out.
        MissingExtraError: transformers is not installed.
    """
    part = _outer_part(shape)
    document = _document(part, min(_SHORT, shape.max_position_embeddings))
    return _compare(
        process.start(part, reader, [document]),
        lambda: transformers_side.logits_of_part(
            hf_folder, part, part.read_apart(reader), [document]
        ),
    )


def _outer_part(shape: ModelShape) -> ModelSlice:
    step = max(1, shape.vocab_size // _NUM_WORDS)
    words = tuple(range(0, shape.vocab_size, step))[:_NUM_WORDS]
    return ModelSlice(shape, outer_layers(shape), words)


def _document(part: ModelSlice, length: int) -> list[int]:
    return random.Random(0).choices(range(len(part.tokens)), k=length)


def _long_length(config: "PretrainedConfig") -> int:
    """Return a length beyond everything in a config of transformers that changes at a length."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    rope = rope.get("full_attention") or rope
    original = rope.get("original_max_position_embeddings") or 0
    return int(max(_SHORT, original, getattr(config, "sliding_window", None) or 0)) + _BEYOND


def _compare(
    future: "Future[list[npt.NDArray[np.float32]]]", theirs: Callable[[], list[torch.Tensor]]
) -> LogitDifference:
    expected = theirs()
    try:
        found = [torch.from_numpy(logits) for logits in future.result()]
    except BrokenProcessPool:
        raise CheckpointError(
            "The process in which Megatron computed was killed, probably for lack of memory. "
            "Use a machine with more, or leave the comparison out (--no-check, --no-logits)."
        ) from None
    return worst_difference(found, expected)


def worst_difference(
    found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]
) -> LogitDifference:
    """Return the largest relative difference over all positions of all prompts."""
    worst, worst_position = 0.0, 0
    for ours_TV, theirs_TV in zip(found, expected, strict=True):
        relative_T = (ours_TV - theirs_TV).norm(dim=-1) / theirs_TV.norm(dim=-1)
        relative_T = relative_T.nan_to_num(nan=torch.inf)
        if float(relative_T.max()) > worst:
            worst, worst_position = float(relative_T.max()), int(relative_T.argmax())
    return LogitDifference(worst, worst_position, max(map(len, expected)))


def _encode(folder: Path) -> list[list[int]]:
    tokenizer = load_tokenizer(read_tokenizer_files(folder), control_tokens_as_text=True)
    encoded = (tokenizer.encode(prompt, add_special_tokens=False) for prompt in PROMPTS)
    return [encoding.ids for encoding in encoded if encoding.ids] or [[0]]
