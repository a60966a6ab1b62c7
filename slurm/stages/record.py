"""What a stage's folder says of it, and the checks before and after its command runs.

A stage starts only when everything it reads is what it was planned with: outside files have the
same content, and each stage it builds on is finished and has left what it recorded.
"""

import socket
import time
from pathlib import Path

import orjson
from pydantic import Field

from megatron_msm.config.section import Section
from megatron_msm.errors import MsmError
from megatron_msm.formats.files import write_json_atomic
from slurm.kinds import StageKind
from slurm.stages.code_version import code_versions
from slurm.stages.fingerprint import fingerprint
from slurm.stages.ingredients import Ingredient

STAGE_FILE = "stage.json"
DONE_FILE = "done.json"


class Need(Section):
    """A stage that another builds on."""

    folder: Path
    identity: str


class Read(Section):
    """A file or folder from outside, with the content it was planned with."""

    path: Path
    sha256: str


class StageRecord(Section):
    """The content of stage.json. Paths are relative to the experiment's folder."""

    identity: str
    kind: StageKind
    label: str
    ingredients: tuple[Ingredient, ...]
    """Everything that decides what it makes."""
    arguments: tuple[str, ...]
    makes: tuple[str, ...]
    needs: tuple[Need, ...] = ()
    after: tuple[Need, ...] = ()
    """Stages that must have ended well before, and of which it uses nothing."""
    reads: tuple[Read, ...] = ()
    num_ranks: int | None = None
    num_steps: int | None = None

    @property
    def before(self) -> tuple[Need, ...]:
        """All stages that must be finished before this one starts."""
        return (*self.needs, *self.after)

    @property
    def code(self) -> dict[str, str]:
        """Versions of the packages that it was planned with."""
        return {each.name: each.value for each in self.ingredients if each.what == "code"}


class DoneRecord(Section):
    """The content of done.json."""

    identity: str
    made: dict[str, str]
    """Fingerprint of each thing that the stage leaves."""
    dropped: tuple[str, ...] = ()
    """What of it was deleted since, as nothing needed it any more (`keeping`)."""
    seconds: float
    host: str
    ended_unix_s: float = Field(default_factory=time.time)


def read_stage(folder: Path) -> StageRecord:
    """Return what the stage in `folder` is."""
    return StageRecord.model_validate(orjson.loads((folder / STAGE_FILE).read_bytes()))


def read_done(folder: Path) -> DoneRecord | None:
    """Return what a finished stage recorded, or None."""
    path = folder / DONE_FILE
    return DoneRecord.model_validate(orjson.loads(path.read_bytes())) if path.exists() else None


def is_finished(folder: Path, identity: str) -> bool:
    """Whether the stage is finished and what it made, and nobody dropped, is as it recorded."""
    done = read_done(folder)
    return done is not None and done.identity == identity and _changed_output(folder, done) is None


def check_inputs(folder: Path) -> str | None:
    """Return why the stage must not start, or None when its inputs are the planned ones.

    Args:
        folder: The stage's folder, `ROOT/stages/NAME`.
    """
    root, stage = folder.parents[1], read_stage(folder)
    if code_versions(stage.kind) != stage.code:
        return "the installed code changed since the stage was planned; run the experiment again"
    for need in stage.before:
        done = read_done(root / need.folder)
        if done is None:
            return f"{root / need.folder}: needed, and not finished"
        if done.identity != need.identity:
            return f"{root / need.folder}: made as {done.identity}, planned was {need.identity}"
        if done.dropped and need in stage.needs:
            return f"{root / need.folder}: dropped (keep: exports); run the experiment again"
        changed = _changed_output(root / need.folder, done)
        if changed is not None:
            return f"{root / need.folder / changed}: changed since it was made"
    for read in stage.reads:
        found = _fingerprint_or_none(read.path)
        if found != read.sha256:
            return f"{read.path}: content {found} is not the planned {read.sha256}"
    return None


def record_outputs(folder: Path, *, seconds: float) -> None:
    """Write done.json.

    Raises:
        MsmError: The command ended well and has not left what it should.
    """
    stage = read_stage(folder)
    done = DoneRecord(
        identity=stage.identity,
        made={name: fingerprint(folder / name) for name in stage.makes},
        seconds=seconds,
        host=socket.gethostname(),
    )
    write_json_atomic(folder / DONE_FILE, done.model_dump(mode="json"))


def _changed_output(folder: Path, done: DoneRecord) -> str | None:
    for name, recorded in done.made.items():
        if name not in done.dropped and _fingerprint_or_none(folder / name) != recorded:
            return name
    return None


def _fingerprint_or_none(path: Path) -> str | None:
    try:
        return fingerprint(path)
    except (MsmError, OSError):
        return None
