"""`msm prep check`: a dataset proved from its files."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_file
from megatron_msm.formats.indexed_dataset import (
    IndexedDataset,
    TokenArray,
    mask_prefix,
    token_dtype,
)
from megatron_msm.formats.manifest import DatasetManifest, dataset_file, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance
from megatron_msm.formats.rejects import REJECTS_SUFFIX, read_rejects
from megatron_msm.progress import SILENT, Progress


class Finding(NamedTuple):
    """The result of one check."""

    name: str
    is_ok: bool
    detail: str


def check_dataset(prefix: Path, *, progress: Progress = SILENT) -> list[Finding]:
    """Read every file of a finished dataset and compare it with the others.

    Args:
        prefix: Of the dataset.
        progress: Told how many bytes were hashed.

    Raises:
        DataFormatError: It is not finished, or a file cannot be opened at all.
    """
    manifest = read_manifest(prefix)
    progress.start("check", sum(entry.bytes for entry in manifest.files.values()))
    findings = list(_hashes(prefix, manifest, progress))
    if not all(finding.is_ok for finding in findings):
        return findings
    tokens = IndexedDataset(prefix)
    findings += [*_counts(prefix, manifest, tokens), _index(tokens), _provenance(prefix, tokens)]
    findings.append(_token_ids(manifest, tokens))
    if manifest.kind == "chats":
        findings.append(_masks(prefix, manifest, tokens))
    return findings


def require_ok(prefix: Path, findings: list[Finding]) -> None:
    """Raise if a check failed.

    Raises:
        DataFormatError: Names every check that failed.
    """
    failed = [f"{finding.name}: {finding.detail}" for finding in findings if not finding.is_ok]
    if failed:
        raise DataFormatError(
            f"{prefix}: the dataset is damaged. {'; '.join(failed)}. Prepare it again with --force."
        )


def _hashes(prefix: Path, manifest: DatasetManifest, progress: Progress) -> Iterator[Finding]:
    for suffix, entry in manifest.files.items():
        found = sha256_of_file(dataset_file(prefix, suffix), on_read=progress.advance)
        is_same = found == entry.sha256
        detail = f"{entry.bytes} bytes" if is_same else "its content changed since it was written"
        yield Finding(f"sha256 of {suffix}", is_same, detail)


def _counts(prefix: Path, manifest: DatasetManifest, tokens: IndexedDataset) -> Iterator[Finding]:
    counts = manifest.counts
    num_rejects = sum(1 for _ in read_rejects(dataset_file(prefix, REJECTS_SUFFIX)))
    yield _equal("lines = blank + kept + rejected", counts.lines, _total(manifest))
    yield _equal("kept = rows", counts.kept, len(tokens))
    yield _equal("rejected = lines of the reject file", counts.rejected, num_rejects)
    yield _equal("tokens", counts.tokens, int(tokens.lengths.sum(dtype=np.int64)))


def _total(manifest: DatasetManifest) -> int:
    counts = manifest.counts
    return counts.blank + counts.kept - counts.extra_rows + counts.rejected


def _index(tokens: IndexedDataset) -> Finding:
    ends = np.cumsum(tokens.lengths, dtype=np.int64) * tokens.dtype.itemsize
    starts = ends - tokens.lengths.astype(np.int64) * tokens.dtype.itemsize
    is_ok = (
        bool((tokens.lengths > 0).all())
        and np.array_equal(tokens.offsets, starts)
        and np.array_equal(tokens.document_indices, np.arange(len(tokens) + 1))
    )
    return Finding("index", is_ok, "rows are contiguous" if is_ok else "rows overlap or have gaps")


def _provenance(prefix: Path, tokens: IndexedDataset) -> Finding:
    name = "provenance is row-aligned"
    num_rows = 0
    for num_rows, row in enumerate(read_provenance(dataset_file(prefix, PROVENANCE_SUFFIX)), 1):
        if num_rows > len(tokens) or row.tokens != tokens.lengths[num_rows - 1]:
            return Finding(name, False, f"row {num_rows - 1} differs in its number of tokens")
    return _equal(name, num_rows, len(tokens))


def _token_ids(manifest: DatasetManifest, tokens: IndexedDataset) -> Finding:
    name = "token ids"
    if tokens.dtype != token_dtype(manifest.vocab_size):
        return Finding(name, False, f"stored as {tokens.dtype}")
    for row, ids in enumerate(tokens):
        if ids.min() < 0 or ids.max() >= manifest.vocab_size:
            return Finding(name, False, f"row {row} has an id outside the vocabulary")
        if manifest.eod_id is not None and ids[-1] != manifest.eod_id:
            return Finding(name, False, f"row {row} does not end with token {manifest.eod_id}")
    return Finding(name, True, f"all below {manifest.vocab_size}")


def _masks(prefix: Path, manifest: DatasetManifest, tokens: IndexedDataset) -> Finding:
    name = "loss mask"
    masks = IndexedDataset(mask_prefix(prefix))
    if masks.dtype != np.uint8 or not np.array_equal(masks.lengths, tokens.lengths):
        return Finding(name, False, "it is not aligned with the tokens")
    trained = 0
    for row, mask in enumerate(masks):
        problem = _mask_problem(mask)
        if problem is not None:
            return Finding(name, False, f"row {row} {problem}")
        trained += int(mask.sum())
    return _equal(name, trained, manifest.counts.loss_tokens)


def _mask_problem(mask: TokenArray) -> str | None:
    if mask.max() > 1:
        return "has values other than 0 and 1"
    if not mask.any():
        return "carries no loss at all"
    if mask.all():
        return "carries loss everywhere"
    return None


def _equal(name: str, found: object, needed: object) -> Finding:
    is_ok = found == needed
    return Finding(name, is_ok, str(found) if is_ok else f"{found} against {needed}")
