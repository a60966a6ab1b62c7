"""The estimate of a run file on GPUs that need not be there. No torch."""

from collections.abc import Mapping
from pathlib import Path

from megatron_msm.config.run import PhaseConfig, RunConfig
from megatron_msm.data.blend import build_blend
from megatron_msm.formats.checkpoint_folder import HF_FOLDER, resolve_checkpoint
from megatron_msm.formats.manifest import dataset_file
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.gpus import gpu_named
from megatron_msm.models.sizes.recompute_sizes import check_recompute
from megatron_msm.plan.estimate import RunEstimate, estimate_run
from megatron_msm.train.checkpoints.adapter import check_targets

_INDEX_SUFFIX = ".idx"


def estimate(
    config: RunConfig, *, gpu: str, num_gpus: int | None = None, model: Path | None = None
) -> RunEstimate:
    """Estimate memory, time and GPU hours of a run.

    Args:
        config: The run.
        gpu: `h100`, `h200`, `a100` or `b200`.
        num_gpus: Left out: as many as the run's layout has ranks.
        model: A Hugging Face folder (its config.json) in the place of the run's `model`.

    Raises:
        ConfigError: The GPU is not known or cannot run the precision, or the model cannot have the
            adapters or recompute what it is asked to.
        CheckpointError: There is no model to read the sizes from.
        DataFormatError: A dataset is there and broken.
    """
    shape = _shape(config, model)
    check_targets(shape, config.lora)
    check_recompute(shape, config.memory)
    return estimate_run(
        config,
        shape,
        _num_steps(config),
        num_gpus=num_gpus or config.parallel.world_size,
        gpu=gpu_named(gpu),
    )


def _shape(config: RunConfig, model: Path | None) -> ModelShape:
    hf_folder = model or config.model.hf
    return read_model_shape(hf_folder or resolve_checkpoint(config.model.source) / HF_FOLDER)


def _num_steps(config: RunConfig) -> Mapping[str, int | None]:
    return {
        phase.name: _steps_of_phase(phase, seed=config.seed + index)
        for index, phase in enumerate(config.phases)
    }


def _steps_of_phase(phase: PhaseConfig, *, seed: int) -> int | None:
    """Return the optimizer steps, None when they depend on a dataset that is not there yet."""
    steps = phase.duration.num_steps(phase.tokens_per_step)
    if steps is not None:
        return steps
    prefixes = [source.prefix for source in phase.data.all_sources]
    if not all(dataset_file(prefix, _INDEX_SUFFIX).exists() for prefix in prefixes):
        return None
    blend = build_blend(
        phase.data,
        phase.duration,
        seq_length=phase.seq_length,
        global_batch_size=phase.global_batch_size,
        seed=seed,
    )
    return blend.num_steps
