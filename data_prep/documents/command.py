"""`msm prep docs`: a corpus of documents to a Megatron indexed dataset.

The tokens are those of Megatron-LM's tools/preprocess_data.py: each text encoded on its own without
special tokens, then the end-of-document token. One difference is deliberate: text that spells a
control token is encoded as plain text, unless `--special-tokens ids` asks for their behaviour.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_prep.reading.input_sample import sample_texts
from data_prep.reading.inputs import expand_inputs
from data_prep.reading.parse_lines import parse_documents
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Blank, Document, Item, check_carry
from data_prep.run_preparation import PreparationOptions, already_prepared, fill
from data_prep.tokenizing.choose_encoder import choose_encoder
from data_prep.tokenizing.encode import ControlTokenCheck, EncodedBatch, TextEncoder
from data_prep.writing.dataset_writer import open_writer
from data_prep.writing.encoded_block import EncodedBlock, provenance_row
from data_prep.writing.prepared import Prepared
from data_prep.writing.recipe import Recipe
from data_prep.writing.workers import Task, num_workers_for
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.indexed_dataset import TokenArray, token_dtype
from megatron_msm.formats.manifest import Counts
from megatron_msm.formats.provenance import provenance_table
from megatron_msm.formats.rejects import Reject
from megatron_msm.formats.tokenizer_files import (
    TokenizerFiles,
    read_tokenizer_files,
    read_tokenizer_json,
)
from megatron_msm.formats.vocabulary import check_tokenizer_fits_its_model
from megatron_msm.progress import SILENT, Progress

SpecialTokens = Literal["text", "ids"]


@dataclass(frozen=True, kw_only=True)
class DocumentOptions(PreparationOptions):
    """The options of `msm prep docs`."""

    append_eod: bool = True
    eod_token: str | None = None
    """None: the tokenizer's end-of-sequence token."""
    prepend_bos: bool = False
    """Whether every document begins with the tokenizer's beginning-of-sequence token."""
    text_field: str = "text"
    """The field of an input line that holds the document."""
    special_tokens: SpecialTokens = "text"
    """What becomes of text that spells a control token: plain text, or the token's id."""


def prepare_documents(
    inputs: list[Path],
    options: DocumentOptions,
    *,
    progress: Progress = SILENT,
    on_slow: Callable[[str], None] | None = None,
) -> Prepared:
    """Tokenize documents into the dataset `options.prefix`.

    Args:
        inputs: Files, folders, patterns.
        options: The command's options.
        progress: Told the number of input bytes done and rows made.
        on_slow: Called with the reason when the fast back end is not used.

    Raises:
        DataFormatError: An input cannot be used, or too many of its lines are rejected.
        CheckpointError: The tokenizer cannot be used.
    """
    inputs = expand_inputs(inputs)
    check_carry(options.carry)
    prefix, shard = options.prefix, options.shard
    content = read_tokenizer_json(options.tokenizer)
    files = read_tokenizer_files(options.tokenizer, content=content)
    check_tokenizer_fits_its_model(files)
    reader = LineReader(inputs, shard=shard, max_line_bytes=options.max_line_bytes)
    recipe = _recipe(files, options, inputs)
    if (made := already_prepared(options, recipe, reader)) is not None:
        return made
    blocks = reader.blocks()
    first = list(itertools.islice(blocks, 1))
    chosen = choose_encoder(
        files,
        content,
        sample_texts(first, reader.parts, text_field=options.text_field),
        control_tokens_as_text=options.special_tokens == "text",
    )
    del content  # workers are forked without it
    if chosen.why_slow is not None and on_slow is not None:
        on_slow(chosen.why_slow)
    dtype = token_dtype(files.vocab_size)
    with open_writer(prefix, dtype=dtype, has_mask=False, carry=options.carry) as writer:
        fill(
            writer,
            itertools.chain(first, blocks),
            DocumentEncoder(
                files, chosen.encoder, _check(files, options), options, eod_id=recipe.eod_id
            ),
            max_rejects=options.max_rejects,
            num_workers=num_workers_for(reader.parts, options.workers),
            progress=progress,
        )
        manifest = writer.publish(
            replace(recipe, backend=chosen.encoder.name),
            reader.entries,
            may_be_empty=shard is not None,
        )
        return Prepared(prefix, manifest, already_made=False)


class DocumentEncoder:
    """Turns blocks of lines into rows.

    Args:
        files: The tokenizer.
        encoder: The back end.
        check: Finds control tokens that plain text must not become.
        options: Say how a document begins, its field, and the fields to carry.
        eod_id: The end-of-document token; None appends none.
    """

    def __init__(
        self,
        files: TokenizerFiles,
        encoder: TextEncoder,
        check: ControlTokenCheck,
        options: DocumentOptions,
        *,
        eod_id: int | None,
    ) -> None:
        self._files = files
        self._encoder = encoder
        self._check = check
        self._eod_id = eod_id
        self._bos_id = files.bos_id if options.prepend_bos else None
        self._text_field = options.text_field
        self._carry = options.carry
        self._dtype = token_dtype(files.vocab_size)

    def __call__(self, task: Task) -> EncodedBlock:
        """Return the rows of a block, and its lines that are none."""
        documents: list[Document] = []
        rejects: list[Reject] = []
        num_blank = 0
        for item in self._items(task):
            if isinstance(item, Document):
                documents.append(item)
            elif isinstance(item, Reject):
                rejects.append(item)
            else:
                assert isinstance(item, Blank), "chats have no place among documents"
                num_blank += 1
        documents = [] if task.rejects_only else documents
        batch = self._encoder.encode_batch([document.utf8 for document in documents])
        reasons = self._unusable(batch)
        if reasons:
            rejects += [documents[index].line.reject(reasons[index]) for index in reasons]
            rejects.sort(key=lambda reject: reject.line)
            is_kept = np.array([index not in reasons for index in range(len(documents))])
            documents = [d for d, kept in zip(documents, is_kept, strict=True) if kept]
            tokens = batch.tokens[np.repeat(is_kept, batch.lengths)]
            batch = batch._replace(tokens=tokens, lengths=batch.lengths[is_kept])
        tokens, lengths = self._with_ends(batch)
        rows = [
            provenance_row(item.line, item.carried, text=item.text, utf8=item.utf8, num_tokens=n)
            for item, n in zip(documents, lengths.tolist(), strict=True)
        ]
        return EncodedBlock(
            tokens,
            lengths,
            mask=None,
            provenance=provenance_table(rows, self._carry),
            rejects=rejects,
            counts=Counts(
                kept=len(rows),
                rejected=len(rejects),
                tokens=len(tokens),
                loss_tokens=len(tokens),
                blank=num_blank,
                rescued=min(batch.num_rescued, len(documents)),
                lost_bytes=sum(self._files.num_lost_bytes(item.utf8) for item in documents),
            ),
        )

    def _items(self, task: Task) -> Iterator[Item]:
        lines = task.block.lines()
        return parse_documents(lines, carry=self._carry, text_field=self._text_field)

    def _unusable(self, batch: EncodedBatch) -> dict[int, str]:
        """Return which texts cannot be rows, and why."""
        if batch.lengths.all() and not self._check.count_in(batch.tokens):
            return {}
        reasons: dict[int, str] = {}
        for index, row in enumerate(batch.rows()):
            control = self._check.first_in(row)
            if len(row) == 0:
                reasons[index] = "the tokenizer has no token for any character of 'text'"
            elif control is not None:
                reasons[index] = f"plain text is encoded to control token {control}"
        return reasons

    def _with_ends(self, batch: EncodedBatch) -> tuple[TokenArray, npt.NDArray[np.int32]]:
        """Return tokens and lengths with what begins and ends a document."""
        num_added = sum(token is not None for token in (self._bos_id, self._eod_id))
        if not num_added:
            return batch.tokens.astype(self._dtype, copy=False), batch.lengths
        lengths = batch.lengths + np.int32(num_added)
        stops = np.cumsum(lengths, dtype=np.int64)
        tokens = np.empty(int(stops[-1]) if len(stops) else 0, self._dtype)
        is_text = np.ones(len(tokens), np.bool_)
        for indices, token in ((stops - lengths, self._bos_id), (stops - 1, self._eod_id)):
            if token is not None:
                is_text[indices] = False
                tokens[indices] = token
        tokens[is_text] = batch.tokens
        return tokens, lengths


def _check(files: TokenizerFiles, options: DocumentOptions) -> ControlTokenCheck:
    refused = set() if options.special_tokens == "ids" else set(files.control_tokens.values())
    return ControlTokenCheck(refused - {files.model_unk_id}, vocab_size=files.vocab_size)


def _recipe(files: TokenizerFiles, options: DocumentOptions, inputs: list[Path]) -> Recipe:
    eod_id = _eod_id(files, options.eod_token) if options.append_eod else None
    if options.prepend_bos and files.bos_id is None:
        raise CheckpointError(
            f"{files.path}: --prepend-bos, and the tokenizer names no bos_token. Leave it out."
        )
    return Recipe(
        kind="docs",
        tokenizer_sha256=files.tokenizer_sha256,
        tokenizer_path=str(files.folder),
        vocab_size=files.vocab_size,
        settings={
            "append_eod": options.append_eod,
            "control_tokens": options.special_tokens,
            "max_line_bytes": options.max_line_bytes,
            "carry": [*options.carry],
            # Left out where they are as they always were: datasets made before stay finished.
            **({"prepend_bos": True} if options.prepend_bos else {}),
            **({} if options.text_field == "text" else {"text_field": options.text_field}),
        },
        eod_id=eod_id,
        shard=None if options.shard is None else options.shard.entry(inputs),
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
