"""`msm prep docs`: a corpus of documents to a Megatron indexed dataset.

The tokens are those of Megatron-LM's tools/preprocess_data.py without the BOS: each text encoded
on its own, then the end-of-document token. One difference is deliberate: text that spells a control
token is encoded as plain text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.dataset_writer import open_writer, refuse_foreign_files
from data_prep.encode import ControlTokenCheck, TextEncoder, TokenizersEncoder
from data_prep.fill import Outcome, Row, fill, provenance_row
from data_prep.inputs import expand_inputs
from data_prep.outcome import Prepared
from data_prep.parse_lines import parse_documents
from data_prep.read_lines import MAX_LINE_BYTES, LineReader
from data_prep.recipe import Recipe, find_finished
from data_prep.records import Blank, Document, Item, check_carry
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.indexed_dataset import token_dtype
from megatron_msm.formats.rejects import Reject
from megatron_msm.formats.tokenizer_files import (
    TokenizerFiles,
    load_tokenizer,
    read_tokenizer_files,
)


@dataclass(frozen=True)
class DocumentOptions:
    """The options of `msm prep docs`."""

    tokenizer: Path
    out: Path
    append_eod: bool = True
    eod_token: str | None = None
    """None: the tokenizer's end-of-sequence token."""
    carry: tuple[str, ...] = ()
    """Further fields of the input line that become columns of the provenance."""
    max_rejects: int = 0
    max_line_bytes: int = MAX_LINE_BYTES
    force: bool = False


def prepare_documents(
    inputs: list[Path],
    options: DocumentOptions,
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> Prepared:
    """Tokenize documents into the dataset `options.out`.

    Raises:
        DataFormatError: An input cannot be used, or too many of its lines are rejected.
        CheckpointError: The tokenizer cannot be used.
    """
    inputs = expand_inputs(inputs)
    check_carry(options.carry)
    files = read_tokenizer_files(options.tokenizer)
    recipe = _recipe(files, options)
    if not options.force:
        refuse_foreign_files(options.out)
        finished = find_finished(options.out, recipe, inputs, max_rejects=options.max_rejects)
        if finished is not None:
            return Prepared(finished, already_made=True)
    encoder = TokenizersEncoder(load_tokenizer(files, control_tokens_as_text=True))
    check = ControlTokenCheck(
        set(files.control_tokens.values()) - {files.model_unk_id}, vocab_size=files.vocab_size
    )
    lines = LineReader(inputs, max_line_bytes=options.max_line_bytes, on_bytes=on_bytes)
    dtype = token_dtype(files.vocab_size)
    with open_writer(options.out, dtype=dtype, has_mask=False, carry=options.carry) as writer:
        fill(
            writer,
            parse_documents(lines, carry=options.carry),
            lambda batch: encode_documents(batch, encoder, check, eod_id=recipe.eod_id),
            max_rejects=options.max_rejects,
        )
        return Prepared(writer.publish(recipe, lines.entries), already_made=False)


def encode_documents(
    batch: list[Item], encoder: TextEncoder, check: ControlTokenCheck, *, eod_id: int | None
) -> Iterator[Outcome]:
    """Yield the outcome of each item: documents become rows, the others pass through."""
    documents = [item for item in batch if isinstance(item, Document)]
    rows = iter(encoder.encode_batch([document.text for document in documents]).rows())
    for item in batch:
        if not isinstance(item, Document):
            assert isinstance(item, Reject | Blank), "chats have no place among documents"
            yield item
            continue
        tokens = next(rows)
        control = check.first_in(tokens)
        if len(tokens) == 0:
            yield item.line.reject("the tokenizer has no token for any character of 'text'")
        elif control is not None:
            yield item.line.reject(f"plain text is encoded to control token {control}")
        else:
            row = tokens if eod_id is None else np.append(tokens, np.int32(eod_id))
            provenance = provenance_row(
                item.line, item.carried, text=item.text, num_tokens=len(row)
            )
            yield Row(row, provenance)


def _recipe(files: TokenizerFiles, options: DocumentOptions) -> Recipe:
    eod_id = _eod_id(files, options.eod_token) if options.append_eod else None
    return Recipe(
        kind="docs",
        tokenizer_sha256=files.tokenizer_sha256,
        tokenizer_path=str(files.folder),
        vocab_size=files.vocab_size,
        settings={
            "append_eod": options.append_eod,
            "control_tokens": "text",
            "max_line_bytes": options.max_line_bytes,
            "carry": list(options.carry),
        },
        eod_id=eod_id,
    )


def _eod_id(files: TokenizerFiles, token: str | None) -> int:
    if token is not None:
        return files.require_id(token, what="--eod-token")
    if files.eos_id is None:
        raise CheckpointError(
            f"{files.folder}: the tokenizer names no eos_token to end documents with. Name the "
            "token with --eod-token, or give --no-append-eod."
        )
    return files.eos_id
