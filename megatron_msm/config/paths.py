"""Where relative paths of a configuration file start.

    inputs      at the folder of the file: grid, suite, generation, judge and server files
    outputs     where the command runs: `out`, `store`, `kept_in`
    RUN.yaml    all of them where the command runs: its inputs are what other commands have written

A path that leads nowhere, and would lead somewhere under the other reading, is refused with both.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import ConfigError
from megatron_msm.formats.manifest import manifest_path


def input_path(file: Path, path: Path) -> Path:
    """Return an input that `file` names; it starts at the folder of `file`.

    Raises:
        ConfigError: Nothing is there, and something is where the command runs.
    """
    found = file.parent / path
    if not found.exists() and path.exists():
        raise ConfigError(
            f"{file}: {path} is not in the folder of this file, where its paths start, but where "
            f"the command runs. Write {_from(file.parent, path)}."
        )
    return found


def load_run(file: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file for a command that was given it.

    Raises:
        ConfigError: It is wrong, or a path in it is meant from its folder.
    """
    config = load_config(file, RunConfig, overrides)
    check_run_paths(file, config)
    return config


def check_run_paths(file: Path, config: RunConfig) -> None:
    """Refuse inputs of a run file that are meant from its folder.

    Raises:
        ConfigError: One is not where the command runs, and is in the folder of `file`.
    """
    for field, path, is_there in _inputs(config):
        beside = file.parent / path
        if not is_there(path) and is_there(beside):
            raise ConfigError(
                f"{field}: {path} is not where the command runs, where paths of a run file start, "
                f"but in the folder of {file}. Run the command there, or write {beside}."
            )


def _inputs(config: RunConfig) -> Iterator[tuple[str, Path, Callable[[Path], bool]]]:
    yield "model", config.model.source, Path.exists
    for phase in config.phases:
        for source in phase.data.all_sources:
            yield f"phases.{phase.name}.data", source.prefix, _is_dataset
        for prefix in () if phase.validation is None else phase.validation.prefixes:
            yield f"phases.{phase.name}.validation.prefixes", prefix, _is_dataset


def _is_dataset(prefix: Path) -> bool:
    return manifest_path(prefix).exists()


def _from(folder: Path, path: Path) -> Path:
    """Return the path as a file in `folder` has to write it."""
    return Path(os.path.relpath(path, folder))
