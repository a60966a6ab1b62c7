"""The fast back end: `gigatoken`, corrected where it is known to differ from `tokenizers`.

- It needs a token for each of the 256 bytes. Some tokenizers lack a few (SmolLM2's 21); those are
  added above the vocabulary, and a text that then contains an id from above it is encoded by
  `tokenizers`, which leaves such bytes out and merges across the gap.
- It always turns text that spells an added token into that token. Control tokens are therefore
  taken out of its copy of the tokenizer when they are to be plain text.
- It remembers every word that it has met, without a limit (800 MB after 80 MB of new random words).
  When the process has grown too much, it is loaded anew, which takes about half a second, and what
  was freed is handed back to the system: by itself the C library keeps most of it.
- It may panic: an exception of Rust code, which Python does not count as an `Exception`. While the
  back ends are compared that decides for `tokenizers`; later `RescuedEncoder` has the texts encoded
  by `tokenizers` and starts gigatoken anew.

Whether the two agree is not taken on trust: `data_prep/tokenizing/choose_encoder.py` compares them.

Source: gigatoken 0.10.0, by trial.
"""

import ctypes
import resource
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import orjson

from data_prep.tokenizing.encode import EncodedBatch, TextEncoder, batch_of
from megatron_msm.formats.tokenizer_files import TokenizerFiles, TokenizerJson, byte_characters

if TYPE_CHECKING:
    import gigatoken

_MOST_GROWTH_BYTES = 160 << 20
"""How much a process may grow before its tokenizer is loaded anew."""


class GigatokenEncoder:
    """Encodes with gigatoken, on one core: what it has learned before a fork is there after it.

    Args:
        files: The tokenizer.
        content: Its tokenizer.json.
        exact: Encodes the texts for which gigatoken has no token.
        control_tokens_as_text: As in `load_tokenizer`.

    Raises:
        ImportError: gigatoken is not installed.
        ValueError: It does not know this kind of tokenizer.
    """

    def __init__(
        self,
        files: TokenizerFiles,
        content: TokenizerJson,
        exact: TextEncoder,
        *,
        control_tokens_as_text: bool,
    ) -> None:
        self.name = f"gigatoken {version('gigatoken')}"
        self._content = gigatoken_json(
            files, content, control_tokens_as_text=control_tokens_as_text
        )
        self._exact = exact
        self._vocab_size = files.vocab_size
        self._load()

    def unload(self) -> None:
        """Forget the loaded tokenizer; the next texts load it anew."""
        self._tokenizer: gigatoken.Tokenizer | None = None
        _trim()

    def _load(self) -> "gigatoken.Tokenizer":
        import gigatoken

        self.unload()  # frees the old one first
        self._tokenizer = tokenizer = gigatoken.Tokenizer.from_json(self._content)
        _trim()
        self._resident_when_loaded = _resident_bytes()
        return tokenizer

    def encode_batch(self, texts: Sequence[bytes]) -> EncodedBatch:
        """Encode the texts, in order."""
        if not texts:
            return batch_of([])
        tokenizer = self._tokenizer
        if tokenizer is None or _resident_bytes() - self._resident_when_loaded > _MOST_GROWTH_BYTES:
            del tokenizer  # so that the old one is freed before the new one is loaded
            tokenizer = self._load()
        layout = tokenizer.encode_batch(list(texts), parallel=False).layout
        tokens: npt.NDArray[np.uint32] = np.asarray(layout.content.data)
        offsets: npt.NDArray[np.int64] = np.asarray(layout.offsets.data)
        assert len(offsets) == len(texts) + 1, "one row of tokens for each text"
        tokens = tokens[offsets[0] : offsets[-1]]
        batch = EncodedBatch(tokens.view(np.int32), np.diff(offsets).astype(np.int32))
        if len(tokens) and int(tokens.max()) >= self._vocab_size:
            return self._with_exact_rows(batch, texts)
        return batch

    def _with_exact_rows(self, batch: EncodedBatch, texts: Sequence[bytes]) -> EncodedBatch:
        rows = batch.rows()
        unknown = [index for index, row in enumerate(rows) if (row >= self._vocab_size).any()]
        exact = self._exact.encode_batch([texts[index] for index in unknown]).rows()
        for index, row in zip(unknown, exact, strict=True):
            rows[index] = row
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        return EncodedBatch(np.concatenate(rows), lengths)


class RescuedEncoder:
    """Encodes with a back end that may fail, and what it fails on with the exact one.

    Args:
        fast: It gives the tokens of `exact`, or raises.
        exact: Never fails on a text.
    """

    def __init__(self, fast: GigatokenEncoder, exact: TextEncoder) -> None:
        self.name = fast.name
        self._fast = fast
        self._exact = exact

    def encode_batch(self, texts: Sequence[bytes]) -> EncodedBatch:
        """Encode the texts, in order."""
        try:
            return self._fast.encode_batch(texts)
        except BaseException as error:
            if not is_failure(error):
                raise
        self._fast.unload()  # a panic may leave it in any state
        return self._exact.encode_batch(texts)._replace(num_rescued=len(texts))


def is_failure(error: BaseException) -> bool:
    """Whether a back end failed; a panic of Rust code is no `Exception`."""
    return not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError)


def gigatoken_json(
    files: TokenizerFiles, content: TokenizerJson, *, control_tokens_as_text: bool
) -> bytes:
    """Return the tokenizer.json that gigatoken is given."""
    changed = content | {"truncation": None, "padding": None, "post_processor": None}
    if control_tokens_as_text:
        changed["added_tokens"] = [
            token
            for token in content.get("added_tokens") or ()
            if token["content"] not in files.control_tokens
        ]
    characters = byte_characters()
    if files.missing_bytes:
        more = {
            characters[byte]: files.vocab_size + index
            for index, byte in enumerate(files.missing_bytes)
        }
        vocab = content["model"]["vocab"]
        assert isinstance(vocab, dict), "only byte-level vocabularies can lack a byte"
        changed["model"] = content["model"] | {"vocab": vocab | more}
    return orjson.dumps(changed)


def _resident_bytes() -> int:
    """Return this process's resident memory; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _trim() -> None:
    """Hand freed memory back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
