"""`keep: exports`: checkpoints that nothing needs any more are deleted, and their stages stay made.

A job that has finished a stage looks at what that stage was built on. A checkpoint goes when every
experiment that has it says so, and all stages that any of them builds on it are finished. One that
nothing is built on stays: nothing was exported of it. Who asks for it again makes it again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import orjson
from pydantic import Field

from megatron_msm.config.section import Section
from megatron_msm.formats.files import delete_folder, write_json_atomic
from slurm.jobs.submitted import locked
from slurm.kinds import KINDS
from slurm.stages.record import DONE_FILE, is_finished, read_done, read_stage
from slurm.stages.stage import Stage

EXPERIMENTS = "experiments"
"""Folder, beside the stages, of a file for each experiment that has asked for some of them."""

Keep = Literal["all", "exports"]


class Asked(Section):
    """What one experiment asks of the stages in a folder."""

    labels: dict[Path, str]
    """What people call each stage, by its folder; each after those it needs."""
    keep: Keep = "all"
    """`exports`: checkpoints may go once all that is built on them is finished."""
    consumers: dict[Path, tuple[Path, ...]] = Field(default_factory=dict)
    """Which stages are built on each, by folder."""


def drop_unneeded(folder: Path) -> None:
    """Delete checkpoints that the finished stage in `folder` was built on and nothing needs now."""
    root = folder.parents[1]
    for need in read_stage(folder).needs:
        if not KINDS[read_stage(root / need.folder).kind].makes_checkpoints:
            continue
        # Under this lock an experiment says what it needs, before it looks at what is there.
        with locked(root / EXPERIMENTS):
            if not _is_needed(root, need.folder):
                _drop(root / need.folder)


def remade(root: Path, stages: Sequence[Stage]) -> set[str]:
    """Return the identities of finished stages whose checkpoints are gone and needed again.

    Args:
        root: Where the stages are.
        stages: Each after those that it needs.
    """
    again: set[str] = set()
    wanted: set[str] = set()
    for stage in reversed(stages):
        is_asked_for = stage.identity in wanted and is_dropped(root / stage.folder)
        if is_asked_for:
            again.add(stage.identity)
        if is_asked_for or not is_finished(root / stage.folder, stage.identity):
            wanted |= {need.identity for need in stage.needs}
    return again


def is_dropped(folder: Path) -> bool:
    """Whether the stage in `folder` is finished and its checkpoints were deleted."""
    done = read_done(folder)
    return done is not None and bool(done.dropped)


def _is_needed(root: Path, folder: Path) -> bool:
    paths = (root / EXPERIMENTS).glob("[!.]*.json")
    asking = [asked for path in paths if folder in (asked := _read(path)).labels]
    consumers = {each for asked in asking for each in asked.consumers.get(folder, ())}
    return (
        not consumers
        or any(asked.keep == "all" for asked in asking)
        or any(read_done(root / each) is None for each in consumers)
    )


def _read(path: Path) -> Asked:
    content = orjson.loads(path.read_bytes())
    return Asked.model_validate({k: v for k, v in content.items() if k in Asked.model_fields})


def _drop(folder: Path) -> None:
    done = read_done(folder)
    if done is None or done.dropped:
        return
    dropped = done.model_copy(update={"dropped": tuple(done.made)})
    write_json_atomic(folder / DONE_FILE, dropped.model_dump(mode="json"))
    for name in done.made:
        delete_folder(folder / name)
