"""Writes a whole dataset aside and publishes it at once, manifest last.

.tmp-PREFIX.bin ... written while the run lasts; a run that dies leaves only these
.tmp-PREFIX.publishing  present while names are being moved: what lies there is ours to replace
PREFIX.bin ...          after the renames
PREFIX.manifest.json    the last to appear
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data_prep.recipe import Recipe
from megatron_msm.errors import DataFormatError, MsmError
from megatron_msm.formats.files import fsync_path, tmp_path
from megatron_msm.formats.indexed_dataset import IndexedDatasetWriter, mask_prefix
from megatron_msm.formats.manifest import (
    Counts,
    DatasetManifest,
    InputEntry,
    dataset_file,
    file_entry,
    manifest_path,
    write_manifest,
)
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, ProvenanceRow, ProvenanceWriter
from megatron_msm.formats.rejects import REJECTS_SUFFIX, Reject, RejectWriter

FAILED_REJECTS_SUFFIX = ".rejects-failed.jsonl"
"""Where the rejects of a run that had too many of them are left for the user."""
_TOKEN_FILES = (".bin", ".idx")
_MASK_FILES = (".mask.bin", ".mask.idx")
_SIDECARS = (PROVENANCE_SUFFIX, REJECTS_SUFFIX)


class DatasetWriter:
    """One dataset in the making. Use `open_writer`, which cleans up after an error.

    Attributes:
        lines: Input lines accounted for so far.
        blank: Those of them that were blank.
    """

    def __init__(
        self, prefix: Path, *, dtype: npt.DTypeLike, has_mask: bool, carry: Sequence[str] = ()
    ) -> None:
        self.prefix = prefix
        self._aside = tmp_path(prefix)
        self._tokens = IndexedDatasetWriter(self._aside, dtype)
        self._mask = IndexedDatasetWriter(mask_prefix(self._aside), np.uint8) if has_mask else None
        self._provenance = ProvenanceWriter(dataset_file(self._aside, PROVENANCE_SUFFIX), carry)
        self._rejects = RejectWriter(dataset_file(self._aside, REJECTS_SUFFIX))
        self._trained_tokens = 0
        self.lines = 0
        self.blank = 0
        self.overlong_dropped = 0
        self.overlong_truncated = 0
        self.extra_rows = 0

    @property
    def num_rejects(self) -> int:
        """Lines rejected so far, without those dropped on purpose."""
        return self._rejects.num_rejects - self.overlong_dropped

    @property
    def counts(self) -> Counts:
        """Where the lines went so far."""
        return Counts(
            lines=self.lines,
            blank=self.blank,
            kept=len(self._tokens),
            rejected=self._rejects.num_rejects,
            overlong_dropped=self.overlong_dropped,
            overlong_truncated=self.overlong_truncated,
            extra_rows=self.extra_rows,
            tokens=self._tokens.num_tokens,
            trained_tokens=self._trained_tokens,
        )

    def add(
        self,
        tokens: npt.NDArray[np.integer[Any]],
        provenance: ProvenanceRow,
        mask: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Append one row.

        Args:
            tokens: [length] token ids.
            provenance: Where they come from.
            mask: [length] 1 where the loss counts; needed for a dataset with a mask.
        """
        assert len(tokens) == provenance.tokens, "provenance must count the row's tokens"
        self.lines += 1
        self._tokens.add_document(tokens)
        if self._mask is None:
            self._trained_tokens += len(tokens)
        else:
            assert mask is not None, "this dataset has a mask"
            assert len(mask) == len(tokens), "the mask must be aligned with the tokens"
            self._mask.add_document(mask)
            self._trained_tokens += int(mask.sum())
        self._provenance.add(provenance)

    def reject(self, reject: Reject) -> None:
        """Record one rejected line."""
        self.lines += 1
        self._rejects.add(reject)

    def drop(self, reject: Reject) -> None:
        """Record one line that an option leaves out."""
        self.reject(reject)
        self.overlong_dropped += 1

    def join_rows(self, rows: int = 1) -> None:
        """Say that so many of the rows added belong to a line that has a row already."""
        self.lines -= rows
        self.extra_rows += rows

    def skip_blank(self, lines: int = 1) -> None:
        """Count lines of nothing but white space."""
        self.lines += lines
        self.blank += lines

    def publish(self, recipe: Recipe, inputs: Sequence[InputEntry]) -> DatasetManifest:
        """Flush everything, move it to its names, and write the manifest.

        Raises:
            DataFormatError: No line became a row.
        """
        if len(self._tokens) == 0:
            raise DataFormatError(
                f"{self.prefix}: none of the {self.lines} input lines became a row "
                f"({self.blank} blank, {self.num_rejects} rejected), so there is no dataset. "
                "Give an input with at least one usable line."
            )
        self._finalize()
        suffixes = (*_TOKEN_FILES, *(_MASK_FILES if self._mask else ()), *_SIDECARS)
        files = {suffix: file_entry(dataset_file(self._aside, suffix)) for suffix in suffixes}
        manifest = recipe.manifest(inputs, counts=self.counts, files=files)
        marker = _publishing_marker(self.prefix)
        marker.touch()
        manifest_path(self.prefix).unlink(missing_ok=True)
        fsync_path(self.prefix.parent)
        for suffix in (*_MASK_FILES, FAILED_REJECTS_SUFFIX):
            dataset_file(self.prefix, suffix).unlink(missing_ok=True)
        for suffix in suffixes:
            dataset_file(self._aside, suffix).replace(dataset_file(self.prefix, suffix))
        fsync_path(self.prefix.parent)
        write_manifest(self.prefix, manifest)
        marker.unlink()
        return manifest

    def keep_rejects(self) -> Path:
        """Leave the rejects of a failed run beside the prefix, and return where."""
        self._rejects.finalize()
        kept = dataset_file(self.prefix, FAILED_REJECTS_SUFFIX)
        dataset_file(self._aside, REJECTS_SUFFIX).replace(kept)
        return kept

    def discard(self) -> None:
        """Close and remove everything written aside."""
        self._tokens.close()
        if self._mask is not None:
            self._mask.close()
        self._rejects.close()
        with contextlib.suppress(OSError):  # a full disk must not hide the first error
            self._provenance.close()
        for suffix in (*_TOKEN_FILES, *_MASK_FILES, *_SIDECARS):
            dataset_file(self._aside, suffix).unlink(missing_ok=True)

    def _finalize(self) -> None:
        self._tokens.finalize()
        if self._mask is not None:
            self._mask.finalize()
        self._provenance.finalize()
        fsync_path(dataset_file(self._aside, PROVENANCE_SUFFIX))
        self._rejects.finalize()


@contextlib.contextmanager
def open_writer(
    prefix: Path, *, dtype: npt.DTypeLike, has_mask: bool, carry: Sequence[str] = ()
) -> Iterator[DatasetWriter]:
    """Yield the writer of a new dataset; what was not published is removed at the end.

    Raises:
        DataFormatError: Another process is writing the same dataset.
        MsmError: The file system refuses: no space, no permission.
    """
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        lock_path = dataset_file(tmp_path(prefix), ".lock")
        with lock_path.open("wb") as lock:
            _lock(lock, lock_path, prefix)
            writer = DatasetWriter(prefix, dtype=dtype, has_mask=has_mask, carry=carry)
            try:
                yield writer
            finally:
                writer.discard()
                lock_path.unlink(missing_ok=True)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise MsmError(
            f"{prefix}: could not be written: {error.strerror}{where}. Nothing was finished. "
            "Make room, or choose another --out, and run the command again."
        ) from None


def refuse_foreign_files(prefix: Path) -> None:
    """Refuse to write over tokens that have no manifest: another tool may have made them.

    Raises:
        DataFormatError: There are such files, and no marker says that a run of ours left them.
    """
    if manifest_path(prefix).exists() or _publishing_marker(prefix).exists():
        return
    for suffix in (*_TOKEN_FILES, *_MASK_FILES):
        path = dataset_file(prefix, suffix)
        if path.exists():
            raise DataFormatError(
                f"{path}: exists and has no manifest, so `msm prep` did not finish it and another "
                "tool may have made it. Choose another --out, or replace it with --force."
            )


def _publishing_marker(prefix: Path) -> Path:
    return dataset_file(tmp_path(prefix), ".publishing")


def _lock(lock: BinaryIO, path: Path, prefix: Path) -> None:
    """Lock the file; where the file system cannot lock, go on without."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = not path.exists() or path.stat().st_ino != os.fstat(lock.fileno()).st_ino
    except BlockingIOError:
        taken = True
    except OSError:
        taken = False
    if taken:
        raise DataFormatError(
            f"{prefix}: another process is writing this dataset. Wait for it, or choose another "
            "--out."
        )
