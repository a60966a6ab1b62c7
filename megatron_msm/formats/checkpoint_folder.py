"""Checkpoint folders: Megatron-LM's layout, and what makes one complete.

    ROOT/latest_checkpointed_iteration.txt     the newest complete iteration, moved last
    ROOT/iter_0000100/
        .metadata, metadata.json, common.pt, *.distcp     megatron-core's torch_dist format
        hf/                  the Hugging Face folder's small files, byte for byte, and tensors.json
        msm_run.yaml         resolved configuration (training only)
        msm_state.json       `CheckpointState`; written last, so its presence means complete

A checkpoint is written under a temporary name, flushed, renamed, and only then `latest` moves.
This module knows files, not tensors: it imports no torch.
"""

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.files import (
    TMP_PREFIX,
    FileRecord,
    delete_folder,
    file_record,
    publish_folder,
    sha256_of_file,
    sha256_of_json,
    tmp_path,
    write_json_atomic,
    write_text_atomic,
)
from megatron_msm.formats.json_types import JsonObject

LATEST_FILE = "latest_checkpointed_iteration.txt"
STATE_FILE = "msm_state.json"
RUN_FILE = "msm_run.yaml"
EXPORT_FILE = "msm_export.json"
"""In a Hugging Face folder made by `msm convert export`: what it is and where it comes from."""
HF_FOLDER = "hf"
WEIGHTS_SUFFIX = ".distcp"
"""Ends the names of the files with tensors, the only large ones."""


class LineageEntry(BaseModel):
    """One stage that a checkpoint went through: enough to name an arm by what made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    """`import`, or the name of the training phase."""
    identity: str
    """SHA-256 over everything that determined the stage's result."""
    details: JsonObject = Field(default_factory=dict)
    """What went into it: source folder, data hashes, steps, settings."""


class AdapterRecord(BaseModel):
    """The LoRA adapters that a checkpoint holds beside the base model's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Megatron's names of the projections with adapters."""
    rank_stabilized: bool = False

    @property
    def scale(self) -> float:
        """What an adapter's output is multiplied by.

        Source: arXiv 2106.09685 (LoRA): alpha / r; arXiv 2312.03732 (rsLoRA): alpha / sqrt(r).
        """
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class CheckpointState(BaseModel):
    """The content of msm_state.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    iteration: int
    """Optimizer steps of the current phase; 0 for an imported model."""
    phase: str
    """`import`, or the training phase's name."""
    phase_complete: bool
    consumed_packs: int = 0
    """Data position: packed sequences of the phase consumed by all ranks so far."""
    skipped_steps: int = 0
    """Steps of the phase that changed nothing because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """Length of the current run of skipped steps."""
    recent_losses: tuple[float, ...] = ()
    """Losses of the newest steps, where loss spikes are looked for."""
    rollbacks: tuple[tuple[int, int], ...] = ()
    """Loss spikes of the phase that were gone back from: the step returned to, and the spike's;
    the steps between, the spike's included, are not in the weights."""
    config_sha256: str | None = None
    """Hash of the resolved phase configuration that wrote it; resuming asks for the same."""
    architecture: str
    """Hugging Face `model_type`."""
    model_sha256: str
    """Hash of the architecture's canonical shape; equal for models that can share weights."""
    tokenizer_sha256: str
    chat_template_sha256: str | None
    adapter: AdapterRecord | None = None
    """None when every weight of the model is the checkpoint's own."""
    lineage: tuple[LineageEntry, ...]
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, FileRecord] = Field(default_factory=dict)
    """Every other file of the folder, by relative path."""

    @property
    def identity(self) -> str:
        """Hash that names the checkpoint: lineage, position and the bytes of its weights."""
        files = {name: record.sha256 for name, record in self.files.items()}
        lineage = [entry.model_dump() for entry in self.lineage]
        return sha256_of_json([lineage, self.phase, self.iteration, files])


def iteration_folder(root: Path, iteration: int) -> Path:
    """Return `ROOT/iter_0000100` for iteration 100."""
    return root / f"iter_{iteration:07d}"


@contextlib.contextmanager
def checkpoint_written_aside(root: Path, iteration: int) -> Iterator[Path]:
    """Yield the temporary folder to write into; the caller ends with `publish_checkpoint`.

    An error removes the temporary folder. Used by one process, or by rank 0 of many.
    """
    tmp = tmp_path(iteration_folder(root, iteration))
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    try:
        yield tmp
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def publish_checkpoint(
    tmp: Path,
    root: Path,
    state: CheckpointState,
    *,
    known_files: Mapping[str, FileRecord] | None = None,
) -> CheckpointState:
    """Hash and list every file, write the state, rename into place, then move `latest`.

    Args:
        tmp: The folder with everything but the state.
        root: The checkpoint folder.
        state: Its file list is filled in.
        known_files: Files that were hashed while they were written.

    Returns:
        The state with its file list, as written.
    """
    state = state.model_copy(update={"files": file_records(tmp, known_files or {})})
    write_json_atomic(tmp / STATE_FILE, state.model_dump(mode="json"))
    publish_folder(tmp, iteration_folder(root, state.iteration))
    write_text_atomic(root / LATEST_FILE, f"{state.iteration}\n")
    return state


def latest_iteration(root: Path) -> int | None:
    """Return the iteration that `latest` names, or None when there is no checkpoint yet.

    Raises:
        CheckpointError: The file holds something that is not a number.
    """
    path = root / LATEST_FILE
    if not path.exists():
        return None
    text = path.read_text().strip()
    if not text.isdigit():
        raise CheckpointError(
            f"{path}: found {text!r} where an iteration number should be. "
            f"Write the number of the newest iter_* folder into it."
        )
    return int(text)


def resolve_checkpoint(path: Path) -> Path:
    """Return the iteration folder meant by `path`: itself, or the newest one below it.

    Raises:
        CheckpointError: Nothing complete is there.
    """
    if (path / STATE_FILE).exists():
        return path
    iteration = latest_iteration(path) if path.is_dir() else None
    if iteration is None:
        phases = _phases_of_run(path)
        if phases:
            raise CheckpointError(
                f"{path}: is the folder of a run. Give one of its phases: "
                f"{', '.join(map(str, phases))}."
            )
        raise CheckpointError(
            f"{path}: no checkpoint here (neither {STATE_FILE} nor {LATEST_FILE}). "
            "Give the folder that `msm convert import` or `msm train` wrote."
        )
    return iteration_folder(path, iteration)


def _phases_of_run(folder: Path) -> list[Path]:
    """Return the phases of a run that have a checkpoint, in the order of their newest ones."""
    newest = [path for path in folder.glob(f"*/{LATEST_FILE}") if path.parent.name[0] != "_"]
    return [path.parent for path in sorted(newest, key=lambda path: path.stat().st_mtime_ns)]


def read_checkpoint_state(folder: Path) -> CheckpointState:
    """Read an iteration folder's state and check that every listed file has its size.

    Raises:
        CheckpointError: The folder is incomplete or was changed.
    """
    path = folder / STATE_FILE
    try:
        state = CheckpointState.model_validate(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: {STATE_FILE} is missing, so the checkpoint is incomplete. "
            "Use an older iteration, or write it again."
        ) from None
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise CheckpointError(f"{path}: not a checkpoint state: {error}") from None
    for name, record in state.files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing from the checkpoint. Use another iteration.")
        if file.stat().st_size != record.bytes:
            raise CheckpointError(
                f"{file}: {file.stat().st_size} bytes where {record.bytes} were written. "
                "The checkpoint is damaged; use another iteration."
            )
    return state


def verify_checkpoint_hashes(
    folder: Path, state: CheckpointState, *, part: int = 0, num_parts: int = 1
) -> None:
    """Read every file and compare its SHA-256 with the recorded one.

    Args:
        folder: The iteration folder.
        state: Its state.
        part: Which share of the files to read, when several processes divide them.
        num_parts: How many shares there are.

    Raises:
        CheckpointError: A file's content changed since it was written.
    """
    # By size, so that the large files are divided evenly.
    records = sorted(state.files.items(), key=lambda item: (item[1].bytes, item[0]))
    for name, record in records[part::num_parts]:
        found = sha256_of_file(folder / name)
        if found != record.sha256:
            raise CheckpointError(
                f"{folder / name}: sha256 {found[:12]}… differs from the recorded "
                f"{record.sha256[:12]}…. The checkpoint is damaged; use another iteration."
            )


def file_records(folder: Path, known: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    """Return size and hash of every file of a folder; `known` ones are not read again."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {name: known.get(name) or file_record(folder / name) for name in names}


def iteration_folders(root: Path) -> list[Path]:
    """Return a phase's iteration folders, oldest first (by number, not by name)."""
    return sorted(root.glob("iter_*"), key=_iteration_of)


def _iteration_of(folder: Path) -> int:
    return int(folder.name.removeprefix("iter_"))


def kept_iterations(
    steps: Sequence[int], *, newest: int, interval: int, keep_last: int, keep_every: int | None
) -> list[int]:
    """Return which of a phase's checkpoints stay after the one of step `newest` was saved.

    Kept are the newest, the last `keep_last` multiples of `interval` and all multiples of
    `keep_every`.

    Args:
        steps: Those that are there, the newest among them, in ascending order.
        newest: The one that was saved just now.
        interval: Steps between two regular saves.
        keep_last: How many of the newest regular ones stay.
        keep_every: Multiples of it stay for good; None: none do.
    """
    older = [step for step in steps if step < newest]
    regular = [step for step in older if step % interval == 0]
    # The newest one counts too when it is a regular one.
    num_older = keep_last - (newest % interval == 0)
    kept = {newest, *(regular[len(regular) - num_older :] if num_older else [])}
    return [
        step
        for step in steps
        if step in kept or (step < newest and keep_every is not None and step % keep_every == 0)
    ]


def remove_old_iterations(
    root: Path, *, newest: int, interval: int, keep_last: int, keep_every: int | None
) -> None:
    """Remove what is older than `newest` and not to be kept, as `kept_iterations` says.

    What is newer than `newest` is damaged, and replaced when its step is made again.
    """
    older = [folder for folder in iteration_folders(root) if _iteration_of(folder) < newest]
    kept = kept_iterations(
        [*map(_iteration_of, older), newest],
        newest=newest,
        interval=interval,
        keep_last=keep_last,
        keep_every=keep_every,
    )
    for folder in older:
        if _iteration_of(folder) not in kept:
            delete_folder(folder)


def remove_unfinished(root: Path) -> None:
    """Remove what a run that was killed had begun to write or to remove."""
    for folder in root.glob(f"{TMP_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
