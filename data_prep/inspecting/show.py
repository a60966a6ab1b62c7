"""`msm prep show`: a row as the model sees it, token by token, and what carries loss.

Tokens are separated by a thin bar, runs with and without loss stand on lines of their own, so that
the picture is complete without colours too. A control token is one token; text that spells one is
several.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.indexed_dataset import IndexedDataset, TokenArray, mask_prefix
from megatron_msm.formats.manifest import DatasetManifest, dataset_file, read_manifest
from megatron_msm.formats.provenance import (
    PROVENANCE_SUFFIX,
    ProvenanceRow,
    read_provenance_row,
)
from megatron_msm.formats.tokenizer_files import (
    TokenizerFiles,
    load_tokenizer,
    read_tokenizer_files,
)

_BAR = "▏"
_NEWLINE = "⏎"
_CONTEXT = 8
"""Tokens shown on either side of one."""
_LOSS = "loss    "
_NO_LOSS = "no loss "


class RowView(NamedTuple):
    """One row, read for showing."""

    manifest: DatasetManifest
    row: int
    num_rows: int
    tokens: TokenArray
    mask: npt.NDArray[np.bool_]
    """[tokens] True where the loss counts."""
    provenance: ProvenanceRow
    files: TokenizerFiles


def read_row(prefix: Path, row: int, *, tokenizer: Path | None) -> RowView:
    """Read a row with everything needed to show it.

    Args:
        prefix: The dataset.
        row: Its row; negative rows count from the end.
        tokenizer: The tokenizer's folder; None means where the dataset was made with it.

    Raises:
        DataFormatError: There is no such row, or the tokenizer is another one.
    """
    manifest = read_manifest(prefix)
    tokens = IndexedDataset(prefix)
    if not -len(tokens) <= row < len(tokens):
        raise DataFormatError(
            f"{prefix}: row {row} of a dataset of {len(tokens)} rows. Give a --row from 0 to "
            f"{len(tokens) - 1}, or a negative one to count from the end."
        )
    row %= len(tokens)
    ids = tokens[row]
    is_chat = manifest.kind == "chats"
    mask = IndexedDataset(mask_prefix(prefix))[row] if is_chat else np.ones(len(ids), np.uint8)
    return RowView(
        manifest=manifest,
        row=row,
        num_rows=len(tokens),
        tokens=ids,
        mask=mask.astype(np.bool_),
        provenance=read_provenance_row(dataset_file(prefix, PROVENANCE_SUFFIX), row),
        files=tokenizer_of_dataset(prefix, manifest, tokenizer),
    )


def row_at(prefix: Path, position: int) -> tuple[int, int]:
    """Return the row that holds token `position` of PREFIX.bin, and which of its tokens it is.

    Raises:
        DataFormatError: The dataset has fewer tokens.
    """
    lengths = IndexedDataset(prefix).lengths
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if not 0 <= position < total:
        raise DataFormatError(
            f"{prefix}: --at {position} is not among its {total:,} tokens. Give a number from 0 to "
            f"{total - 1}."
        )
    row = int(np.searchsorted(ends, position, side="right"))
    return row, position - int(ends[row] - lengths[row])


def print_token(view: RowView, token: int, console: Console) -> None:
    """Print one token of a row, and the clause that asked for it.

    Raises:
        DataFormatError: The row has no such token.
    """
    if not 0 <= token < len(view.tokens):
        raise DataFormatError(
            f"--token {token}: row {view.row} has {len(view.tokens)} tokens. Give a number from 0 "
            f"to {len(view.tokens) - 1}."
        )
    first, last = max(token - _CONTEXT, 0), token + _CONTEXT + 1
    spelled = spell_tokens(view.tokens[first:last], view.files)
    carries = "carries loss" if view.mask[token] else "carries no loss"
    line = Text(f"token {token} (id {view.tokens[token]}) {carries}  ")
    for index, text in enumerate(spelled, first):
        line.append(_BAR, style="cyan")
        line.append(text, style="bold reverse" if index == token else "dim")
    line.append(_BAR, style="cyan")
    console.print(line, soft_wrap=True)
    source = view.provenance
    clauses = ", ".join(source.clause_ids or ()) or "no clause named"
    console.print(f"  spec {source.spec_id or 'not named'}, clauses: {clauses}", markup=False)


def print_row(view: RowView, console: Console) -> None:
    """Print a row: where it comes from, its tokens, and which of them carry loss."""
    source, trained = view.provenance, int(view.mask.sum())
    console.print(
        f"[bold]row {view.row}[/bold] of {view.num_rows}  {len(view.tokens)} tokens, "
        f"{trained} carry loss  {escape(source.source_file)}:{source.source_line}",
        soft_wrap=True,
    )
    fields = source._asdict()
    for name, value in (fields | dict(fields.pop("extra"))).items():
        if value is not None and not name.startswith("source_"):
            text = ", ".join(value) if isinstance(value, list) else str(value)
            console.print(f"  {name:<10} {escape(text)}", soft_wrap=True)
    spelled = spell_tokens(view.tokens, view.files)
    control = set(view.files.control_tokens.values())
    for carries_loss, first, last in _runs(view.mask):
        style = "bold" if carries_loss else "dim"
        line = Text(_LOSS if carries_loss else _NO_LOSS, style=f"{style} green" * carries_loss)
        for index in range(first, last):
            line.append(_BAR, style="cyan")
            is_control = int(view.tokens[index]) in control
            line.append(spelled[index], style=f"{style} magenta" if is_control else style)
            if spelled[index].endswith(_NEWLINE) and index + 1 < last:
                line.append(f"{_BAR}\n{' ' * len(_LOSS)}", style="cyan")
        line.append(_BAR, style="cyan")
        console.print(line, soft_wrap=True)


def spell_tokens(tokens: TokenArray, files: TokenizerFiles) -> list[str]:
    """Return each token as text; part of a character is shown as the vocabulary spells it."""
    tokenizer = load_tokenizer(files, control_tokens_as_text=False)
    spelled = []
    for token in tokens.tolist():
        text = tokenizer.decode([token], skip_special_tokens=False)
        if not text or "\N{REPLACEMENT CHARACTER}" in text:
            text = tokenizer.id_to_token(token) or f"<{token}>"
        spelled.append(text.replace("\r", "␍").replace("\n", _NEWLINE))
    return spelled


def _runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[bool, int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(mask)]
    for first, last in itertools.pairwise(edges):
        yield bool(mask[first]), first, last


def tokenizer_of_dataset(
    prefix: Path, manifest: DatasetManifest, given: Path | None
) -> TokenizerFiles:
    """Return the tokenizer that a dataset was made with.

    Raises:
        DataFormatError: It is not where it was, or the one given is another one.
    """
    folder = Path(manifest.tokenizer_path) if given is None else given
    if given is None and not folder.exists():
        raise DataFormatError(
            f"{prefix}: its tokenizer was at {folder}, where nothing is now. Name its folder with "
            "--tokenizer."
        )
    files = read_tokenizer_files(folder)
    if files.tokenizer_sha256 != manifest.tokenizer_sha256:
        raise DataFormatError(
            f"{folder}: tokenizer {files.tokenizer_sha256[:12]}… is not the dataset's "
            f"{manifest.tokenizer_sha256[:12]}…. Name the right one's folder with --tokenizer."
        )
    return files
