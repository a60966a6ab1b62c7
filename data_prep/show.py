"""`msm prep show`: a row as the model sees it, token by token, and what carries loss.

Tokens are separated by a thin bar, runs with and without loss stand on lines of their own, so that
the picture is complete without colours too. A control token is one token; text that spells one is
several.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
        files=_tokenizer(prefix, manifest, tokenizer),
    )


def print_row(view: RowView, console: Console) -> None:
    """Print a row: where it comes from, its tokens, and which of them carry loss."""
    source, trained = view.provenance, int(view.mask.sum())
    console.print(
        f"[bold]row {view.row}[/bold] of {view.num_rows}  {len(view.tokens)} tokens, "
        f"{trained} carry loss  {escape(source.source_file)}:{source.source_line}",
        soft_wrap=True,
    )
    for name, value in source._asdict().items():
        if value is not None and not name.startswith("source_"):
            text = ", ".join(value) if isinstance(value, list) else str(value)
            console.print(f"  {name:<10} {escape(text)}", soft_wrap=True)
    spelled = spell_tokens(view.tokens, view.files)
    control = set(view.files.control_tokens.values())
    for carries_loss, first, last in _runs(view.mask):
        style = "bold" if carries_loss else "dim"
        line = Text(_LOSS if carries_loss else _NO_LOSS, style=f"{style} green" * carries_loss)
        for place in range(first, last):
            line.append(_BAR, style="cyan")
            is_control = int(view.tokens[place]) in control
            line.append(spelled[place], style=f"{style} magenta" if is_control else style)
            if spelled[place].endswith(_NEWLINE) and place + 1 < last:
                line.append(f"{_BAR}\n{' ' * len(_LOSS)}", style="cyan")
        line.append(_BAR, style="cyan")
        console.print(line, soft_wrap=True)


def spell_tokens(tokens: TokenArray, files: TokenizerFiles) -> list[str]:
    """Return each token as text; part of a character is shown as the vocabulary spells it."""
    tokenizer: Any = load_tokenizer(files, control_tokens_as_text=False)
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


def _tokenizer(prefix: Path, manifest: DatasetManifest, given: Path | None) -> TokenizerFiles:
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
