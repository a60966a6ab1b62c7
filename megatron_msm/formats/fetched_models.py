"""Models that `msm fetch` has brought from the Hugging Face hub: where they lie. No network.

    CACHE/ORG/NAME.json              the record of the newest that was fetched
    CACHE/ORG/NAME@COMMIT/           its files, COMMIT to 12 places
    CACHE/ORG/NAME@COMMIT.json       where it is from, and size and SHA-256 of each file

CACHE is `megatron-msm/models` in the user's folder of caches (`XDG_CACHE_HOME`, else `~/.cache`).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import FileRecord

_COMMIT_LENGTH = 12
_MODEL_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<commit>[0-9a-f]{7,40}))?")


class FetchedModel(BaseModel):
    """What is recorded of a model of the hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    repo: str
    """ORG/NAME."""
    revision: str
    """The branch, tag or commit that was asked for."""
    commit: str
    """What it was then, in full."""
    files: Mapping[str, FileRecord]


def cache_folder() -> Path:
    """Return the folder of all models that were fetched."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "megatron-msm" / "models"


def folder_of(repo: str, commit: str) -> Path:
    """Return where a model's files lie, or will."""
    return cache_folder() / f"{repo}@{commit[:_COMMIT_LENGTH]}"


def record_of(folder: Path) -> Path:
    """Return the record beside a model's folder."""
    return folder.with_name(f"{folder.name}.json")


def newest_file(repo: str) -> Path:
    """Return the file that names the newest commit that was fetched."""
    return cache_folder() / f"{repo}.json"


def model_folder(given: str | Path) -> Path:
    """Return the folder that a user means by a path, or by ORG/NAME or ORG/NAME@COMMIT of the hub.

    A path that is there is that path. What was fetched under such a name is taken without a
    network. All else stays as it is, for whoever reads it to refuse with `fetch_hint`.
    """
    path, named = Path(given), _MODEL_ID.fullmatch(str(given))
    if path.exists() or named is None:
        return path
    repo, commit = named["repo"], named["commit"] or _newest_commit(named["repo"])
    if commit is None:
        return path
    found = sorted(cache_folder().glob(f"{repo}@{commit[:_COMMIT_LENGTH]}*/"))
    return found[0] if len(found) == 1 else path


def fetch_hint(given: Path) -> str:
    """Return what to add to a message about a folder that is not there: nothing, or how to get it.

    Nothing is added where the path cannot be a name on the hub.
    """
    if given.exists() or _MODEL_ID.fullmatch(str(given)) is None:
        return ""
    return f" If it is a model of the hub: `msm fetch {given}` first, where there is a network."


def _newest_commit(repo: str) -> str | None:
    path = newest_file(repo)
    if not path.is_file():
        return None
    try:
        return FetchedModel.model_validate_json(path.read_bytes()).commit
    except ValidationError as error:
        raise ConfigError(
            f"{path}: is no record of `msm fetch`: {error}. Delete it, and fetch the model again."
        ) from None
