"""Which back end encodes: gigatoken if it provably agrees with `tokenizers` here, else the latter.

Proof is by trial, at the start of each run: both encode a fixed set of awkward texts and a sample
of the input, and any difference decides for the slower one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.awkward_texts import awkward_texts
from data_prep.encode import TextEncoder, TokenizersEncoder
from data_prep.gigatoken_encoder import GigatokenEncoder
from megatron_msm.formats.tokenizer_files import TokenizerFiles, load_tokenizer

_SHOWN_CHARACTERS = 40


class Chosen(NamedTuple):
    """A back end."""

    encoder: TextEncoder
    why_slow: str | None
    """Why it is not the fast one."""


class _Candidates(NamedTuple):
    """The back ends of one tokenizer, compared on the awkward texts."""

    exact: TextEncoder
    fast: TextEncoder | None
    why_slow: str | None


_latest: dict[tuple[str, bool], _Candidates] = {}
"""Of the tokenizer used last: one process may prepare many datasets."""


def choose_encoder(
    files: TokenizerFiles, sample: Sequence[bytes], *, control_tokens_as_text: bool
) -> Chosen:
    """Return the fastest encoder that gives the tokens of `tokenizers`.

    Args:
        files: The tokenizer.
        sample: Texts of the input, as UTF-8.
        control_tokens_as_text: As in `load_tokenizer`.
    """
    key = files.tokenizer_sha256, control_tokens_as_text
    if key not in _latest:
        found = _compared(files, control_tokens_as_text)
        _latest.clear()
        _latest[key] = found
    exact, fast, why_slow = _latest[key]
    if fast is not None:
        why_slow = _difference(fast, exact, sample)
    return Chosen(exact if fast is None or why_slow else fast, why_slow)


def _compared(files: TokenizerFiles, as_text: bool) -> _Candidates:
    exact = TokenizersEncoder(load_tokenizer(files, control_tokens_as_text=as_text))
    try:
        fast = GigatokenEncoder(files, exact, control_tokens_as_text=as_text)
        why_slow = _difference(fast, exact, awkward_texts(files.added_tokens))
    except ImportError:
        return _Candidates(exact, None, "gigatoken is not installed")
    except BaseException as error:  # a panic of Rust code is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        return _Candidates(exact, None, f"gigatoken cannot do it ({_first_line(error)})")
    return _Candidates(exact, None if why_slow else fast, why_slow)


def _difference(fast: TextEncoder, exact: TextEncoder, texts: Sequence[bytes]) -> str | None:
    differing = first_difference(fast, exact, texts)
    if differing is None:
        return None
    return f"gigatoken encodes {differing.decode()[:_SHOWN_CHARACTERS]!r} differently"


def first_difference(one: TextEncoder, other: TextEncoder, texts: Sequence[bytes]) -> bytes | None:
    """Return the first text that two encoders encode differently."""
    rows = zip(texts, one.encode_batch(texts).rows(), other.encode_batch(texts).rows(), strict=True)
    return next((text for text, a, b in rows if not np.array_equal(a, b)), None)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:160] or type(error).__name__
