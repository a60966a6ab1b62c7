"""Texts to token ids, in batches: the seam where tokenizer back ends plug in."""

from collections.abc import Collection, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from megatron_msm.formats.tokenizer_files import (
    TokenizerFiles,
    TokenizerJson,
    load_tokenizer,
    read_tokenizer_files,
)


class EncodedBatch(NamedTuple):
    """Token ids of several texts, one after the other."""

    tokens: npt.NDArray[np.int32]
    """[sum(lengths)]."""
    lengths: npt.NDArray[np.int32]
    """[texts]."""
    num_rescued: int = 0
    """Texts that the exact back end encoded because the fast one failed."""

    def rows(self) -> list[npt.NDArray[np.int32]]:
        """Return the tokens of each text, as views."""
        if not len(self.lengths):
            return []
        return np.split(self.tokens, np.cumsum(self.lengths, dtype=np.int64)[:-1])


class TextEncoder(Protocol):
    """Encodes plain texts: no special tokens are added."""

    name: str
    """The back end and its version, for the manifest."""

    def encode_batch(self, texts: Sequence[bytes]) -> EncodedBatch:
        """Encode the texts, given as UTF-8, in order."""
        ...


class TokenizersEncoder:
    """The reference back end: Hugging Face `tokenizers`, parallel over the texts of a batch.

    Args:
        files: The tokenizer, loaded at the first use or by `load`.
        control_tokens_as_text: As in `load_tokenizer`.
        content: Its tokenizer.json, if that was read already.
    """

    def __init__(
        self,
        files: TokenizerFiles,
        *,
        control_tokens_as_text: bool,
        content: TokenizerJson | None = None,
    ) -> None:
        self.name = f"tokenizers {version('tokenizers')}"
        self._files = files
        self._as_text = control_tokens_as_text
        self._content = content
        self._tokenizer: Tokenizer | None = None

    def load(self) -> Tokenizer:
        """Load the tokenizer now, as before processes are forked that shall share it."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(
                self._files, control_tokens_as_text=self._as_text, content=self._content
            )
            self._content = None
        return self._tokenizer

    def encode_batch(self, texts: Sequence[bytes]) -> EncodedBatch:
        """Encode the texts, in order."""
        encodings = self.load().encode_batch_fast(
            [text.decode() for text in texts], add_special_tokens=False
        )
        return batch_of([encoding.ids for encoding in encodings])


def token_counts(folder: Path, texts: Sequence[str]) -> list[int]:
    """Return how many tokens each text has as a plain document, without an end of document.

    Raises:
        CheckpointError: The tokenizer of the folder cannot be read.
    """
    encoder = TokenizersEncoder(read_tokenizer_files(folder), control_tokens_as_text=True)
    lengths = encoder.encode_batch([text.encode() for text in texts]).lengths
    return [int(length) for length in lengths]


class ControlTokenCheck:
    """Finds control-token ids where only plain text should be.

    `encode_special_tokens` keeps the added-token matcher off, but a model whose vocabulary lists
    the token as an ordinary piece could still produce its id; then the row is not plain text.
    The unknown token is let through: it is what plain text may become.
    """

    def __init__(self, control_ids: Collection[int], *, vocab_size: int) -> None:
        self._is_control = np.zeros(vocab_size, np.bool_)
        self._is_control[list(control_ids)] = True

    def first_in(self, tokens: npt.NDArray[np.int32]) -> int | None:
        """Return the first control-token id among `tokens`, or None."""
        hits = np.flatnonzero(self._is_control[tokens])
        return int(tokens[hits[0]]) if len(hits) else None

    def count_in(self, tokens: npt.NDArray[np.int32]) -> int:
        """Return how many of `tokens` are control tokens."""
        return int(np.count_nonzero(self._is_control[tokens]))


def batch_of(ids: Sequence[Sequence[int] | npt.NDArray[np.int32]]) -> EncodedBatch:
    """Put the token ids of several texts together."""
    lengths = np.fromiter(map(len, ids), np.int32, len(ids))
    total = int(lengths.sum(dtype=np.int64))
    return EncodedBatch(np.fromiter(chain.from_iterable(ids), np.int32, total), lengths)
