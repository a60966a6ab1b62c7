"""A hash of what a path holds, by the cheapest way that is sure.

Checkpoints, datasets and exported models carry the hashes of their files, written by what made
them; those are taken, after a check of the sizes. Anything else is read whole.
"""

from pathlib import Path

import orjson

from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import (
    LATEST_FILE,
    read_checkpoint_state,
    resolve_checkpoint,
)
from megatron_msm.formats.files import sha256_of_file, sha256_of_json, write_json_atomic
from megatron_msm.formats.manifest import manifest_path, read_manifest


def fingerprint(path: Path) -> str:
    """Return a hash of a checkpoint root, a dataset's PREFIX, a file or a folder.

    Raises:
        ConfigError: Nothing is there.
        CheckpointError: The checkpoint is incomplete.
        DataFormatError: The dataset is incomplete.
    """
    if (path / LATEST_FILE).exists():
        return read_checkpoint_state(resolve_checkpoint(path)).identity
    if manifest_path(path).exists():
        return read_manifest(path).sha256
    if path.is_file():
        return sha256_of_file(path)
    if path.is_dir():
        return _folder(path)
    raise ConfigError(f"{path}: no such file, dataset or folder.")


def _folder(path: Path) -> str:
    """Hash the names and contents of all files below."""
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    return sha256_of_json([[str(file.relative_to(path)), sha256_of_file(file)] for file in files])


class FingerprintCache:
    """Fingerprints of outside files, kept by size and time of change: models are large."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[str]] = orjson.loads(path.read_bytes()) if path.exists() else {}

    def of(self, path: Path) -> str:
        """Return the fingerprint, read anew when a file below changed."""
        stamp = sha256_of_json(_stamps(path))
        known = self._known.get(str(path))
        if known is None or known[0] != stamp:
            known = self._known[str(path)] = [stamp, fingerprint(path)]
        return known[1]

    def save(self) -> None:
        """Keep what is known for the next time."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self._path, self._known)


def _stamps(path: Path) -> list[list[str | int]]:
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    stats = [(str(file.relative_to(path)), file.stat()) for file in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
