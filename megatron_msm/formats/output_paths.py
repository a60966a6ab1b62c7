"""Whether a path can be written, found out before the work rather than after it.

Nothing stays behind: the nearest folder that exists gets a nameless file for a moment, which also
finds full quotas, read-only mounts and /proc, of which permissions tell nothing.
"""

import tempfile
from pathlib import Path

from megatron_msm.errors import ConfigError


def check_output_file(path: Path | None) -> None:
    """Check that a file can be written at `path`; None, an output nobody wants, can.

    Raises:
        ConfigError: It is a folder, or its folder cannot be written or made.
    """
    if path is not None:
        _check(path, is_folder=False)


def check_output_folder(path: Path) -> None:
    """Check that `path` is a folder that can be written, or can be made.

    Raises:
        ConfigError: It is a file, or it cannot be written or made.
    """
    _check(path, is_folder=True)


def _check(path: Path, *, is_folder: bool) -> None:
    try:
        if path.is_dir() and not is_folder:
            raise ConfigError(f"{path}: is a folder. Give the name of a file to write.")
        if path.exists() and is_folder and not path.is_dir():
            raise ConfigError(f"{path}: is a file. Give the name of a folder to write.")
        above = next(
            each for each in (path.absolute(), *path.absolute().parents) if _is_there(each)
        )
        folder = above if above.is_dir() or above != path.absolute() else above.parent
        if not folder.is_dir():
            raise ConfigError(f"{path}: {folder} is a file, not a folder. Give another path.")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{path}: nothing can be written there ({error.strerror}). Give another path, or see "
            "to permissions and space."
        ) from None


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
