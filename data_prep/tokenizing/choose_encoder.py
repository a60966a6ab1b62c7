"""Which back end encodes: gigatoken if it provably agrees with `tokenizers` here, else the latter.

Proof is by trial, at the start of each run: both encode a fixed set of awkward texts and a sample
of the input, and any difference decides for the slower one.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from data_prep.parent_watch import end_with_parent
from data_prep.tokenizing.encode import EncodedBatch, TextEncoder, TokenizersEncoder
from data_prep.tokenizing.gigatoken_encoder import GigatokenEncoder, RescuedEncoder, is_failure
from megatron_msm.formats.tokenizer_files import TokenizerFiles, TokenizerJson
from megatron_msm.formats.tokenizer_probes import encoder_probes

_SHOWN_CHARACTERS = 40


class Chosen(NamedTuple):
    """A back end."""

    encoder: TextEncoder
    why_slow: str | None
    """Why it is not the fast one."""


class _Candidates(NamedTuple):
    """The back ends of one tokenizer, compared on the awkward texts."""

    exact: TokenizersEncoder
    fast: GigatokenEncoder | None
    why_slow: str | None


_latest: dict[tuple[str, bool], _Candidates] = {}
"""Candidates for the tokenizer used last: one process may prepare many datasets."""


def choose_encoder(
    files: TokenizerFiles,
    content: TokenizerJson,
    sample: Sequence[bytes],
    *,
    control_tokens_as_text: bool,
) -> Chosen:
    """Return the fastest encoder that gives the tokens of `tokenizers`.

    Args:
        files: The tokenizer.
        content: Its tokenizer.json.
        sample: Texts of the input, as UTF-8.
        control_tokens_as_text: As in `load_tokenizer`.
    """
    key = files.tokenizer_sha256, control_tokens_as_text
    if key not in _latest:
        found = _compared(files, content, sample, control_tokens_as_text)
        _latest.clear()
        _latest[key] = found
        exact, fast, why_slow = found
    else:
        exact, fast, why_slow = _latest[key]
        if fast is not None:
            why_slow = _difference(sample, fast.encode_batch(sample), exact.encode_batch(sample))
    if fast is not None and why_slow is None:
        return Chosen(RescuedEncoder(fast, exact), None)
    exact.load()
    return Chosen(exact, why_slow)


def _compared(
    files: TokenizerFiles, content: TokenizerJson, sample: Sequence[bytes], as_text: bool
) -> _Candidates:
    """Load both back ends and compare them; another process does the slow one's part meanwhile."""
    exact = TokenizersEncoder(files, control_tokens_as_text=as_text)
    if find_spec("gigatoken") is None:
        return _Candidates(exact, None, "gigatoken is not installed")
    texts = [*encoder_probes(files.added_tokens), *sample]
    with ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start_beside,
        initargs=(
            TokenizersEncoder(files, control_tokens_as_text=as_text, content=content),
            os.getpid(),
        ),
    ) as beside:
        expected = beside.submit(_encode_beside, texts)
        try:
            fast = GigatokenEncoder(files, content, exact, control_tokens_as_text=as_text)
            found = fast.encode_batch(texts)
        except BaseException as error:
            if not is_failure(error):
                raise
            return _Candidates(exact, None, f"gigatoken cannot do it ({_first_line(error)})")
        why_slow = _difference(texts, found, expected.result())
    return _Candidates(exact, None if why_slow else fast, why_slow)


_beside: TokenizersEncoder | None = None


def _start_beside(encoder: TokenizersEncoder, parent: int) -> None:
    global _beside
    end_with_parent(parent)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _beside = encoder


def _encode_beside(texts: Sequence[bytes]) -> EncodedBatch:
    assert _beside is not None, "the process was started by its initializer"
    return _beside.encode_batch(texts)


def _difference(texts: Sequence[bytes], found: EncodedBatch, wanted: EncodedBatch) -> str | None:
    for text, row, needed in zip(texts, found.rows(), wanted.rows(), strict=True):
        if not np.array_equal(row, needed):
            return f"gigatoken encodes {text.decode()[:_SHOWN_CHARACTERS]!r} differently"
    return None


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:160] or type(error).__name__
