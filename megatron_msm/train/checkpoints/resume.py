"""Where a run stands: which phase comes next, and from which checkpoint. No torch.

The newest checkpoint that is whole says it, whatever became of older ones. A checkpoint has in its
lineage what made it; a run continues only what the same configuration, data and parent weights
made.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_msm.config.differences import differences
from megatron_msm.config.load import load_config
from megatron_msm.config.run import RunConfig
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.checkpoint_folder import (
    RUN_FILE,
    CheckpointState,
    LineageEntry,
    iteration_folders,
    read_checkpoint_state,
)
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.train.resolved_run import WITHOUT_EFFECT, ResolvedPhase, ResolvedRun


@dataclass(frozen=True)
class SavedCheckpoint:
    """An iteration folder and its state."""

    folder: Path
    state: CheckpointState


@dataclass(frozen=True)
class PhaseStart:
    """The first phase that is not finished."""

    phase: ResolvedPhase
    origin: SavedCheckpoint
    """What to load: the phase's own newest checkpoint, or what the phase starts from."""
    is_resumed: bool
    """The origin is the phase's own."""
    passed_over: tuple[str, ...] = ()
    """Newer checkpoints that are damaged, with the damage."""

    @property
    def first_step(self) -> int:
        """Optimizer steps of the phase that are done."""
        return self.origin.state.iteration if self.is_resumed else 0

    @property
    def lineage(self) -> tuple[LineageEntry, ...]:
        """The history of the phase's checkpoints."""
        state = self.origin.state
        if self.is_resumed:
            return state.lineage
        return (*state.lineage, lineage_entry(self.phase, state.identity))


def next_phase(run: ResolvedRun, damaged: Collection[Path] = ()) -> PhaseStart | None:
    """Return where to go on, or None when every phase is finished.

    Args:
        run: The run.
        damaged: Checkpoints that turned out to be damaged; the one before them is taken.

    Raises:
        ConfigError: A phase's checkpoint was made with another configuration, data or parent.
    """
    passed_over: list[str] = []
    for index in reversed(range(len(run.phases))):
        phase = run.phases[index]
        saved = _newest_whole(run.config.out / phase.config.name, damaged, passed_over)
        if saved is None:
            continue
        _check_same_run(saved, run, index)
        if not saved.state.phase_complete:
            return PhaseStart(phase, saved, True, tuple(passed_over))
        if index + 1 == len(run.phases):
            return None
        return PhaseStart(run.phases[index + 1], saved, False, tuple(passed_over))
    base = SavedCheckpoint(run.base.folder, run.base.state)
    return PhaseStart(run.phases[0], base, False, tuple(passed_over))


def _newest_whole(
    root: Path, damaged: Collection[Path], passed_over: list[str]
) -> SavedCheckpoint | None:
    for folder in reversed(iteration_folders(root)):
        if folder in damaged:
            continue
        try:
            return SavedCheckpoint(folder, read_checkpoint_state(folder))
        except CheckpointError as error:
            passed_over.append(str(error))
    return None


def lineage_entry(phase: ResolvedPhase, parent: str) -> LineageEntry:
    """Describe the phase as a stage of its checkpoints' history.

    Args:
        phase: The phase.
        parent: Identity of the checkpoint that it starts from.
    """
    data = {
        str(prefix): manifest.sha256
        for prefix, manifest in zip(phase.dataset.prefixes, phase.dataset.manifests, strict=True)
    }
    return LineageEntry(
        stage=phase.config.name,
        identity=sha256_of_json([parent, phase.config_sha256]),
        details={
            "parent": parent,
            "config_sha256": phase.config_sha256,
            "data": {**data},
            "drawn": {
                str(source.prefix): {k: v for k, v in source.amounts.items() if v is not None}
                for source in phase.config.data.all_sources
            },
            "packing": phase.config.data.packing.model_dump(mode="json"),
            "steps": phase.num_steps,
            "processed_tokens": phase.processed_tokens,
            "lr": phase.config.optimizer.lr,
            "seed": phase.seed,
            "adapter": phase.adapter and phase.adapter.model_dump(mode="json"),
        },
    )


def _check_same_run(saved: SavedCheckpoint, run: ResolvedRun, index: int) -> None:
    """Compare the checkpoint's history, stage by stage, with what the run would make."""
    base = run.base.state
    found = saved.state.lineage[len(base.lineage) :]
    phases = run.phases[: index + 1]
    differing: list[str] = []
    if [entry.stage for entry in found] != [phase.config.name for phase in phases]:
        differing.append(f"stages: were {[entry.stage for entry in found]}")
    else:
        for position, (entry, phase) in enumerate(zip(found, phases, strict=True)):
            # The weights that a later phase started from are not known without their checkpoint;
            # that they are this run's follows from the entries before. Those of a base that is not
            # made yet are compared when it is.
            is_known = position == 0 and run.base.is_made
            parent = base.identity if is_known else str(entry.details.get("parent"))
            differing += _differences(entry, lineage_entry(phase, parent))
    if differing:
        fields = "; ".join([*_changed_fields(saved, run), *differing])
        raise ConfigError(
            f"{saved.folder}: was trained with another configuration, data or parent checkpoint "
            f"({fields}). Restore the run file, or choose another `out` folder."
        )


# Of the run file: what changes no result, and what the lineage tells by its content.
_NOT_COMPARED = {
    *(WITHOUT_EFFECT - {"data"}),
    *("out", "model", "memory", "parallel", "logging"),
    *("device", "deterministic", "threads_per_rank", "stop_after_min", "timeout_min"),
    *("prefix", "prefixes", "roles"),
}


def _changed_fields(saved: SavedCheckpoint, run: ResolvedRun) -> Iterator[str]:
    """Yield the fields of the run file that differ from the one in the checkpoint."""
    path = saved.folder / RUN_FILE
    try:
        before = load_config(path, RunConfig).model_dump(mode="json")
    except ConfigError:  # written by a version with other fields
        return
    yield from differences(before, run.config.model_dump(mode="json"), without=_NOT_COMPARED)


def _differences(found: LineageEntry, expected: LineageEntry) -> list[str]:
    if found.identity == expected.identity:
        return []
    differing = [
        f"{expected.stage} {key}: was {found.details.get(key)}, now {value}"
        for key, value in expected.details.items()
        if key != "config_sha256" and found.details.get(key) != value
    ]
    # What the details do not tell is one of the fields of the run file, which are named beside.
    return differing or [f"{expected.stage}: trained with other settings"]
