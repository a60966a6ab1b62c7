"""A model comes from the Hugging Face hub: one commit of it, with every file's hash compared.

Only what is read here is fetched: the files at the top of the repository, of its weights the
safetensors. Pickled weights and the repository's code are left out.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from tqdm.auto import tqdm

from megatron_msm.errors import CheckpointError, ConfigError, MsmError
from megatron_msm.formats.fetched_models import FetchedModel, folder_of, newest_file, record_of
from megatron_msm.formats.files import FileRecord, file_record, write_json_atomic
from megatron_msm.progress import SILENT, Progress

_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".safetensors", ".md")
_NAMES = ("LICENSE", "NOTICE")
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""What the hub's HTTP client raises for a connection too; which client that is, is the hub's own
affair (httpx, or its successor)."""
_SECOND_WEIGHTS = "consolidated"
"""How another tool's copy of the same weights begins, beside those of transformers."""


def fetch_model(repo: str, revision: str, *, progress: Progress = SILENT) -> tuple[Path, bool]:
    """Bring a model into the cache; what was broken off goes on.

    Args:
        repo: ORG/NAME.
        revision: A branch, tag or commit.
        progress: Told how many bytes are here.

    Returns:
        Its folder, and whether it was there before.

    Raises:
        ConfigError: There is no such model or revision, it may not be read, or the hub cannot be
            reached.
        CheckpointError: It has no safetensors, or a file is not what the hub says.
    """
    with _explained(repo, revision):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    commit, wanted = info.sha, _wanted(info.siblings or ())
    assert commit is not None, "the hub names the commit of a revision"
    if not any(file.rfilename.endswith(".safetensors") for file in wanted):
        raise CheckpointError(
            f"{repo}: has no *.safetensors file. Pickled weights are not fetched, since loading "
            "them can run code; look for a repository with safetensors."
        )
    folder = folder_of(repo, commit)
    is_there = folder.is_dir()
    if not is_there:
        with _explained(repo, revision):
            files = _download(repo, commit, wanted, folder, progress)
        record = FetchedModel(repo=repo, revision=revision, commit=commit, files=files)
        write_json_atomic(record_of(folder), record.model_dump(mode="json"))
    newest_file(repo).write_bytes(record_of(folder).read_bytes())
    return folder, is_there


def _wanted(files: Sequence[RepoSibling]) -> list[RepoSibling]:
    return [
        file
        for file in files
        if "/" not in file.rfilename
        and (file.rfilename.endswith(_SUFFIXES) or file.rfilename.startswith(_NAMES))
        and not file.rfilename.startswith(_SECOND_WEIGHTS)
    ]


def _download(
    repo: str, commit: str, wanted: Sequence[RepoSibling], folder: Path, progress: Progress
) -> dict[str, FileRecord]:
    """Fetch files aside, compare them, and give their folder its name."""
    aside = folder.with_name(f".{folder.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    num_bytes = sum(file.size or 0 for file in wanted)
    free = shutil.disk_usage(aside).free
    if free < num_bytes:
        raise ConfigError(
            f"{repo}: {num_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in "
            f"{folder.parent}. Make room, or set XDG_CACHE_HOME to another disk."
        )
    progress.start(f"fetching {repo}", num_bytes)
    records = {}
    for file in wanted:
        path = Path(
            hf_hub_download(
                repo,
                file.rfilename,
                revision=commit,
                local_dir=aside,
                tqdm_class=_bar_that_tells(progress),
            )
        )
        records[file.rfilename] = _compared(path, file)
    shutil.rmtree(aside / ".cache", ignore_errors=True)  # the hub's notes on its downloads
    aside.rename(folder)
    return records


def _compared(path: Path, file: RepoSibling) -> FileRecord:
    """Return the file's record; the hub has SHA-256 of large files, git's SHA-1 of small ones."""
    record = file_record(path)
    if file.lfs is not None:
        found, expected = record.sha256, file.lfs.sha256
    else:
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        expected = file.blob_id or found
    if found != expected:
        path.unlink()
        raise CheckpointError(
            f"{file.rfilename}: came with the hash {found[:12]}, and the hub says {expected[:12]}. "
            "Run the same command again: only this file is fetched anew."
        )
    return record


@contextlib.contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    """Say in one sentence what the hub refuses, or that it is not there."""
    try:
        yield
    except MsmError:
        raise
    except GatedRepoError:
        raise ConfigError(
            f"{repo}: is gated. Accept its terms on its page, log in with `hf auth login`, and run "
            "this again."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ConfigError(
            f"{repo}: the hub has no such model, or you may not see it. Check the name ORG/NAME, "
            "or log in with `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(
            f"{repo}: has no revision {revision!r}. Give a branch, a tag or a commit."
        ) from None
    except (_HTTP_ERROR, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{repo}: the hub cannot be reached from here ({reason}); fetch it where there is a "
            "network, or give a model folder of this machine."
        ) from None


def _bar_that_tells(progress: Progress) -> type[Any]:
    """Return a class that the hub takes for its progress bar, and that tells `progress`."""

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})
            progress.advance(int(options.get("initial") or 0))

        def update(self, n: float | None = 1) -> None:
            progress.advance(int(n or 0))

    return Bar
