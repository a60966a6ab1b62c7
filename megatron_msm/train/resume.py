"""Where a run stands: which phase comes next, and from which checkpoint. No torch.

A checkpoint says in its lineage what made it. A phase continues only a checkpoint that the same
configuration, data and parent weights made.
"""

from dataclasses import dataclass
from pathlib import Path

from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import (
    CheckpointState,
    LineageEntry,
    read_checkpoint_state,
)
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.train.preflight import PhasePlan, RunPlan


@dataclass(frozen=True)
class SavedCheckpoint:
    """An iteration folder and its state."""

    folder: Path
    state: CheckpointState


@dataclass(frozen=True)
class PhaseStart:
    """The first phase that is not finished."""

    phase: PhasePlan
    parent: SavedCheckpoint
    """What the phase starts from: the phase before, or the base model."""
    saved: SavedCheckpoint | None
    """Its own newest checkpoint, to resume from."""


def next_phase(plan: RunPlan) -> PhaseStart | None:
    """Return where to go on, or None when every phase is finished.

    Raises:
        ConfigError: A phase's checkpoint was made with another configuration, data or parent.
        CheckpointError: A checkpoint is incomplete or damaged.
    """
    parent = SavedCheckpoint(plan.base_folder, plan.base_state)
    for phase in plan.phases:
        saved = newest_checkpoint(plan.config.out / phase.config.name)
        if saved is not None:
            _check_same_run(saved, phase, parent.state)
        if saved is None or not saved.state.phase_complete:
            return PhaseStart(phase, parent, saved)
        parent = saved
    return None


def iteration_folders(root: Path) -> list[Path]:
    """Return a phase's iteration folders, oldest first (by number, not by name)."""
    return sorted(root.glob("iter_*"), key=lambda folder: int(folder.name.removeprefix("iter_")))


def newest_checkpoint(root: Path) -> SavedCheckpoint | None:
    """Return the newest iteration of a phase, or None when it has not saved yet."""
    folders = iteration_folders(root)
    if not folders:
        return None
    return SavedCheckpoint(folders[-1], read_checkpoint_state(folders[-1]))


def lineage_entry(phase: PhasePlan, parent: CheckpointState) -> LineageEntry:
    """Describe the phase as a stage of its checkpoints' history."""
    data = {
        str(prefix): manifest.sha256
        for prefix, manifest in zip(phase.dataset.prefixes, phase.dataset.manifests, strict=True)
    }
    return LineageEntry(
        stage=phase.config.name,
        identity=sha256_of_json([parent.identity, phase.config_sha256]),
        details={
            "parent": parent.identity,
            "config_sha256": phase.config_sha256,
            "data": data,
            "drawn": {
                str(source.prefix): {k: v for k, v in source.amounts.items() if v is not None}
                for source in phase.config.data.all_sources
            },
            "packing": phase.config.data.packing.model_dump(mode="json"),
            "steps": phase.num_steps,
            "processed_tokens": phase.processed_tokens,
            "lr": phase.config.optimizer.lr,
            "seed": phase.seed,
        },
    )


def _check_same_run(saved: SavedCheckpoint, phase: PhasePlan, parent: CheckpointState) -> None:
    expected = lineage_entry(phase, parent)
    found = saved.state.lineage[-1]
    if found.identity == expected.identity:
        return
    differing = [
        f"{key}: was {found.details.get(key)}, now {value}"
        for key, value in expected.details.items()
        if found.details.get(key) != value
    ]
    raise ConfigError(
        f"{saved.folder}: was trained with another configuration, data or parent checkpoint "
        f"({'; '.join(differing)}). Restore the run file, or choose another `out` folder."
    )
