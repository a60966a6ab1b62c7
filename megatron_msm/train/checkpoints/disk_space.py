"""Whether the disk holds the checkpoints of a whole run: known before its first step. No torch.

Counted are weights and optimizer state; the small files beside them are not. The run is gone
through save by save, as `CheckpointSaver` makes and removes them, so the answer is the most that
lies on the disk at once: for a moment the new checkpoint beside all that the old ones keep.
"""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from megatron_msm.config.checkpoint import CheckpointConfig
from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import kept_iterations
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.sizes.adapter_sizes import num_adapter_parameters
from megatron_msm.models.sizes.freezing import frozen_keys
from megatron_msm.train.resolved_run import ResolvedPhase, ResolvedRun

_GB = 1e9


def check_disk_space(run: ResolvedRun) -> None:
    """Refuse a run whose checkpoints do not all fit beside what is on the disk.

    Raises:
        ConfigError: They do not; the message says how much is missing and what makes them fewer.
    """
    out = run.config.out
    needed = most_bytes(run) - _bytes_there(run)
    free = shutil.disk_usage(_existing(out)).free
    if needed > free:
        raise ConfigError(
            f"out: the checkpoints of the whole run take {most_bytes(run) / _GB:,.1f} GB at their "
            f"most, {needed / _GB:,.1f} GB more than lie in {out}, where {free / _GB:,.1f} GB are "
            "free. Make room, choose another disk, or keep fewer: raise "
            "phases.NAME.checkpoint.save_interval_steps or keep_every_steps, or lower keep_last."
        )


def most_bytes(run: ResolvedRun) -> int:
    """Return the most bytes of checkpoints that a run has on the disk at once."""
    finished = most = 0
    for phase in run.phases:
        last = _bytes_of_checkpoint(run, with_optimizer=run.is_carried_on(phase))
        between = _bytes_of_checkpoint(run, with_optimizer=True)
        kept: list[int] = []
        for step in saved_steps(phase.num_steps, phase.config.checkpoint):
            new = last if step == phase.num_steps else between
            most = max(most, finished + len(kept) * between + new)
            kept = _kept_after(kept, step, phase)
        finished += (len(kept) - 1) * between + last
    return most


def saved_steps(num_steps: int, config: CheckpointConfig) -> Iterator[int]:
    """Yield the steps after which a phase saves."""
    yield from range(config.save_interval_steps, num_steps, config.save_interval_steps)
    yield num_steps


def _kept_after(kept: list[int], newest: int, phase: ResolvedPhase) -> list[int]:
    config = phase.config.checkpoint
    return kept_iterations(
        [*kept, newest],
        newest=newest,
        interval=config.save_interval_steps,
        keep_last=config.keep_last,
        keep_every=config.keep_every_steps,
    )


def _bytes_of_checkpoint(run: ResolvedRun, *, with_optimizer: bool) -> int:
    dtype_bytes = 2 if run.config.runtime.dtype == "bf16" else 4
    weights = trained = run.shape.num_parameters
    if run.config.lora is not None:
        trained = num_adapter_parameters(run.shape, run.config.lora)
        weights += trained
    elif run.config.freeze:
        trained -= _frozen_weights(run)
    # Main weights and both moments, in float32.
    return weights * dtype_bytes + (trained * 12 if with_optimizer else 0)


def _frozen_weights(run: ResolvedRun) -> int:
    keys = frozen_keys(run.shape, run.config.freeze)
    tensors = table_for(run.shape).expand(run.shape)
    return sum(math.prod(tensor.lengths) for tensor in tensors if tensor.key in keys)


def _bytes_there(run: ResolvedRun) -> int:
    """Return the bytes of the run's checkpoints that lie there already."""
    roots = [run.config.out / phase.config.name for phase in run.phases]
    files = [path for root in roots for path in root.glob("iter_*/*.distcp")]
    return sum(path.stat().st_size for path in files)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
