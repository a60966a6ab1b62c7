"""That the datasets' bytes are those that their manifests name. No torch.

Each file is hashed (SHA-256, some 1 GB/s) and compared with the manifest at a run's first start,
and again at a later one when its size, date or inode is not what it was then; OUT/_datasets.json
remembers those. So bytes that were changed in place are found, unless the date was set back.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import orjson

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_file, write_json_atomic
from megatron_msm.formats.manifest import dataset_file
from megatron_msm.train.resolved_run import ResolvedRun

RECORD_FILE = "_datasets.json"
"""No phase can have such a name."""


class _File(NamedTuple):
    path: Path
    expected: str
    """SHA-256 by the manifest."""

    @property
    def seen(self) -> list[str | int]:
        """What tells whether the file is as it was when it was hashed."""
        now = self.path.stat()
        return [self.expected, now.st_size, now.st_mtime_ns, now.st_ino]


def verify_datasets(run: ResolvedRun) -> None:
    """Compare what the run reads with the manifests; called by one process of the run.

    Raises:
        DataFormatError: A file's bytes are not those that `msm prep` wrote.
    """
    record_file = run.config.out / RECORD_FILE
    files = sorted(set(_files(run)))
    known = _read_record(record_file)
    to_hash = [file for file in files if known.get(str(file.path)) != file.seen]
    record = {str(file.path): file.seen for file in files}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(sha256_of_file, [file.path for file in to_hash])
        changed = [file for file, sha256 in zip(to_hash, found, strict=True) if sha256 != file[1]]
    if changed:
        raise DataFormatError(
            f"{', '.join(str(file.path) for file in changed)}: the bytes are not those that "
            "`msm prep` wrote, by the SHA-256 in the manifest. Put the files back, or prepare the "
            "dataset again under another name."
        )
    if to_hash:
        write_json_atomic(record_file, record)


def _files(run: ResolvedRun) -> Iterator[_File]:
    for phase in run.phases:
        for dataset in (phase.dataset, *(data.blend.dataset for data in phase.held_out)):
            for prefix, manifest in zip(dataset.prefixes, dataset.manifests, strict=True):
                for suffix, entry in manifest.files.items():
                    yield _File(dataset_file(prefix, suffix).absolute(), entry.sha256)


def _read_record(path: Path) -> dict[str, list[str | int]]:
    """Return what is remembered; nothing when it cannot be read, so that all is hashed."""
    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}
