"""The fast back end: `gigatoken`, corrected where it is known to differ from `tokenizers`.

- It needs a token for each of the 256 bytes. Some tokenizers lack a few (SmolLM2's 21); those are
  added above the vocabulary, and a text that then contains an id from above it is encoded by
  `tokenizers`, which leaves such bytes out and merges across the gap.
- It always turns text that spells an added token into that token. Control tokens are therefore
  taken out of its copy of the tokenizer when they are to be plain text.
- What it cannot load or fails on is an error of `GigatokenEncoder`; who makes one has to have
  another encoder at hand.

Whether the two agree is not taken on trust: `data_prep/choose_encoder.py` compares them.

Source: gigatoken 0.10.0, by trial.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from data_prep.encode import EncodedBatch, TextEncoder, batch_of
from megatron_msm.formats.tokenizer_files import TokenizerFiles, byte_characters


class GigatokenEncoder:
    """Encodes with gigatoken, parallel over the texts of a batch outside worker processes.

    Args:
        files: The tokenizer.
        exact: Encodes the texts for which gigatoken has no token.
        control_tokens_as_text: As in `load_tokenizer`.

    Raises:
        ImportError: gigatoken is not installed.
        ValueError: It does not know this kind of tokenizer.
    """

    def __init__(
        self, files: TokenizerFiles, exact: TextEncoder, *, control_tokens_as_text: bool
    ) -> None:
        import gigatoken

        content = gigatoken_json(files, control_tokens_as_text=control_tokens_as_text)
        self.name = f"gigatoken {version('gigatoken')}"
        self._tokenizer: Any = gigatoken.Tokenizer.from_json(content)
        self._exact = exact
        self._vocab_size = files.vocab_size

    def encode_batch(self, texts: Sequence[bytes]) -> EncodedBatch:
        """Encode the texts, in order."""
        if not texts:
            return batch_of([])
        layout = self._tokenizer.encode_batch(list(texts)).layout
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
        unknown = [place for place, row in enumerate(rows) if (row >= self._vocab_size).any()]
        exact = self._exact.encode_batch([texts[place] for place in unknown]).rows()
        for place, row in zip(unknown, exact, strict=True):
            rows[place] = row
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        return EncodedBatch(np.concatenate(rows), lengths)


def gigatoken_json(files: TokenizerFiles, *, control_tokens_as_text: bool) -> bytes:
    """Return the tokenizer.json that gigatoken is given."""
    content: dict[str, Any] = orjson.loads(files.path.read_bytes())
    content |= {"truncation": None, "padding": None, "post_processor": None}
    if control_tokens_as_text:
        content["added_tokens"] = [
            token
            for token in content.get("added_tokens") or ()
            if token["content"] not in files.control_tokens
        ]
    characters = byte_characters()
    if files.missing_bytes:
        content["model"]["vocab"] |= {
            characters[byte]: files.vocab_size + place
            for place, byte in enumerate(files.missing_bytes)
        }
    return orjson.dumps(content)
