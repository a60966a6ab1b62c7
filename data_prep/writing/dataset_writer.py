"""Writes a whole dataset aside and publishes it at once, manifest last.

.tmp-PREFIX.bin ... written while the run lasts; a run that dies leaves only these
.tmp-PREFIX.publishing  present while names are being moved: what lies there is ours to replace
PREFIX.bin ...          after the renames
PREFIX.manifest.json    the last to appear
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from data_prep.writing.encoded_block import EncodedBlock
from data_prep.writing.recipe import Recipe
from megatron_msm.errors import DataFormatError, MsmError
from megatron_msm.formats.background_hash import HashedFile
from megatron_msm.formats.files import FileRecord, fsync_path, tmp_path
from megatron_msm.formats.indexed_dataset import IndexedDatasetWriter, mask_prefix
from megatron_msm.formats.manifest import (
    Counts,
    DatasetManifest,
    InputEntry,
    dataset_file,
    manifest_path,
    write_manifest,
)
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, ProvenanceWriter
from megatron_msm.formats.rejects import REJECTS_SUFFIX, Reject, RejectWriter

FAILED_REJECTS_SUFFIX = ".rejects-failed.jsonl"
"""Where the rejects of a run that had too many of them are left for the user."""
_TOKEN_FILES = (".bin", ".idx")
_MASK_FILES = (".mask.bin", ".mask.idx")
_SIDECARS = (PROVENANCE_SUFFIX, REJECTS_SUFFIX)
_ORPHANS_END_S = 3.0
"""Workers inherit the lock, and notice within a second that their parent was killed."""


class DatasetWriter:
    """One dataset in the making. Use `open_writer`, which cleans up after an error.

    Attributes:
        counts: Where the lines given to it went so far.
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
        self.counts = Counts()
        self._first_reason = ""

    @property
    def num_rejects(self) -> int:
        """Lines rejected so far, without those dropped on purpose."""
        return self.counts.rejected - self.counts.overlong_dropped

    def add_block(self, block: EncodedBlock, *, num_lines: int) -> None:
        """Append what became of a block of lines.

        Args:
            block: Its rows, and its lines that are none.
            num_lines: How many lines were read; `publish` refuses if they are not all there.
        """
        assert len(block.lengths) == block.provenance.num_rows, "each row has its provenance"
        self._tokens.add_documents(block.tokens, block.lengths)
        if self._mask is not None:
            assert block.mask is not None, "this dataset has a mask"
            self._mask.add_documents(block.mask, block.lengths)
        self._provenance.add(block.provenance)
        if block.rejects and not self._first_reason:
            first = block.rejects[0]
            self._first_reason = f"{first.file}:{first.line}: {first.reason}. "
        for reject in block.rejects:
            self._rejects.add(reject)
        self.counts += block.counts + Counts(lines=num_lines)

    def add_rejects(self, rejects: Iterable[Reject], counts: Counts) -> None:
        """Append what a finished dataset has besides its rows.

        Args:
            rejects: Its lines that are no rows.
            counts: Its counts; its rows are counted as they are added.
        """
        for reject in rejects:
            self._rejects.add(reject)
        rows = {"kept": 0, "tokens": 0, "loss_tokens": 0}
        self.counts += counts.model_copy(update={**rows, "lines": counts.lines - counts.kept})

    def publish(
        self, recipe: Recipe, inputs: Sequence[InputEntry], *, may_be_empty: bool = False
    ) -> DatasetManifest:
        """Flush everything, move it to its names, and write the manifest.

        Args:
            recipe: What made the dataset.
            inputs: What was read.
            may_be_empty: Whether no row at all is a result, as for a shard.

        Raises:
            DataFormatError: No line became a row.
        """
        counts = self.counts
        assert counts.lines == counts.blank + counts.kept - counts.extra_rows + counts.rejected, (
            f"lines were lost: {counts}"
        )
        if counts.kept == 0 and not may_be_empty:
            raise DataFormatError(
                f"{self.prefix}: none of the {counts.lines} input lines became a row "
                f"({counts.blank} blank, {self.num_rejects} rejected), so there is no dataset. "
                f"{self._first_reason}Give an input with at least one usable line."
            )
        manifest = recipe.manifest(inputs, counts=counts, files=self._finalize())
        marker = _publishing_marker(self.prefix)
        marker.touch()
        manifest_path(self.prefix).unlink(missing_ok=True)
        fsync_path(self.prefix.parent)
        for suffix in (*_MASK_FILES, FAILED_REJECTS_SUFFIX):
            dataset_file(self.prefix, suffix).unlink(missing_ok=True)
        for suffix in manifest.files:
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
        for part in (self._tokens, self._mask, self._rejects, self._provenance):
            if part is not None:
                with contextlib.suppress(OSError):  # a full disk must not hide the first error
                    part.close()
        for suffix in (*_TOKEN_FILES, *_MASK_FILES, *_SIDECARS):
            dataset_file(self._aside, suffix).unlink(missing_ok=True)

    def _finalize(self) -> dict[str, FileRecord]:
        """Flush every file to disk, and return what the manifest says about it."""
        written: dict[str, HashedFile] = {}
        self._tokens.finalize()
        written |= zip(_TOKEN_FILES, self._tokens.written(), strict=True)
        if self._mask is not None:
            self._mask.finalize()
            written |= zip(_MASK_FILES, self._mask.written(), strict=True)
        self._provenance.finalize()
        self._rejects.finalize()
        written |= {
            PROVENANCE_SUFFIX: self._provenance.written(),
            REJECTS_SUFFIX: self._rejects.written(),
        }
        return {
            suffix: FileRecord(bytes=file.num_bytes, sha256=file.hexdigest())
            for suffix, file in written.items()
        }


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
    """Lock the file, when the workers of a killed run that hold it have ended.

    Raises:
        DataFormatError: It stays locked.
    """
    deadline_s = time.monotonic() + _ORPHANS_END_S
    while not _is_locked_by_us(lock, path):
        if time.monotonic() > deadline_s:
            raise DataFormatError(
                f"{prefix}: another process is writing this dataset. Wait for it, or choose "
                "another --out."
            )
        time.sleep(0.1)


def _is_locked_by_us(lock: BinaryIO, path: Path) -> bool:
    """Try; where the file system cannot lock, go on without."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino
    except BlockingIOError:
        return False
    except OSError:
        return True
