"""A run file resolved: with its base and datasets, the sequences, steps and tokens of each phase.

A function of the run file and of what it names on disk. It writes nothing and imports no torch.
Whether base, datasets and settings go together is the subject of checks.py.
"""

from dataclasses import dataclass

from megatron_msm.config.run import PhaseConfig, RunConfig
from megatron_msm.data.blend import Blend, build_blend
from megatron_msm.data.held_out import HeldOut, held_out_data
from megatron_msm.data.order import PackOrder
from megatron_msm.data.packed_dataset import PackedDataset
from megatron_msm.data.packing.packings import Packings
from megatron_msm.errors import MsmError
from megatron_msm.formats.checkpoint_folder import AdapterRecord
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.shape import ModelShape
from megatron_msm.train.base import Base


@dataclass(frozen=True)
class ResolvedPhase:
    """What one phase will do."""

    config: PhaseConfig
    blend: Blend
    seed: int
    config_sha256: str
    """Hash of everything that decides the phase's result but the weights it starts from."""
    held_out: tuple[HeldOut, ...] = ()
    """Data of the validation."""
    adapter: AdapterRecord | None = None
    """The LoRA adapters that are trained; None when all weights are."""

    @property
    def dataset(self) -> PackedDataset:
        """The packed sequences."""
        return self.blend.dataset

    @property
    def order(self) -> PackOrder:
        """In which order they are visited."""
        return self.blend.order

    @property
    def num_steps(self) -> int:
        """Optimizer steps."""
        return self.blend.num_steps

    @property
    def total_packs(self) -> int:
        """Packed sequences that the phase visits; the last step is filled up with empty ones."""
        return self.order.total

    @property
    def processed_tokens(self) -> int:
        """Positions of the whole phase, padding included."""
        return self.num_steps * self.config.tokens_per_step


@dataclass(frozen=True)
class ResolvedRun:
    """What a run will do."""

    config: RunConfig
    base: Base
    shape: ModelShape
    phases: tuple[ResolvedPhase, ...]

    def is_carried_on(self, phase: ResolvedPhase) -> bool:
        """Return whether the phase after this one begins with its optimizer state."""
        after = self.phases[self.phases.index(phase) + 1 :]
        return bool(after) and after[0].config.optimizer_state == "carry"


def resolve_run(config: RunConfig, base: Base, packings: Packings | None = None) -> ResolvedRun:
    """Work out the steps of a run's phases.

    Args:
        config: The run file.
        base: What it starts from.
        packings: Knows packings that were made already.

    Raises:
        ConfigError: The data are not enough, or cannot be packed as asked for.
        DataFormatError: A dataset is unfinished or damaged.
    """
    packings = packings or Packings()
    phases = tuple(
        _resolve_phase(config, phase, packings, seed=config.seed + index)
        for index, phase in enumerate(config.phases)
    )
    return ResolvedRun(config, base, read_model_shape(base.hf_folder), phases)


def _resolve_phase(
    config: RunConfig, phase: PhaseConfig, packings: Packings, *, seed: int
) -> ResolvedPhase:
    blend = _blend(phase, packings, seed)
    return ResolvedPhase(
        config=phase,
        blend=blend,
        seed=seed,
        config_sha256=_phase_identity(config, phase, blend.dataset, seed),
        held_out=held_out_data(phase, packings),
        adapter=config.lora.record if config.lora else None,
    )


def _blend(phase: PhaseConfig, packings: Packings, seed: int) -> Blend:
    try:
        return build_blend(
            phase.data,
            phase.duration,
            seq_length=phase.seq_length,
            global_batch_size=phase.global_batch_size,
            seed=seed,
            packings=packings,
        )
    except MsmError as error:
        raise type(error)(f"phases.{phase.name}: {error}") from None


# Settings of a phase that do not change its result, or that are looked at on their own.
WITHOUT_EFFECT = {"checkpoint", "data", "global_batch_tokens", "micro_batch_size", "validation"}


def _phase_identity(
    config: RunConfig, phase: PhaseConfig, dataset: PackedDataset, seed: int
) -> str:
    # Where the data lies and how often it is saved changes nothing; the data's content, how much of
    # it is drawn and how it is packed do.
    settings = phase.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    data = [manifest.sha256 for manifest in dataset.manifests]
    amounts = [source.amounts for source in phase.data.all_sources]
    packing = phase.data.packing.model_dump(mode="json")
    if phase.optimizer_state == "fresh":  # as it was before there was a choice
        del settings["optimizer_state"]
    if phase.loss_spike is not None:  # goes back to a checkpoint
        settings["save_interval_steps"] = phase.checkpoint.save_interval_steps
    lora = None if config.lora is None else config.lora.model_dump(mode="json")
    precision = config.runtime.model_dump(mode="json", include={"dtype", "fp8"})
    frozen = [sorted(config.freeze)] if config.freeze else []
    return sha256_of_json([settings, data, amounts, packing, seed, precision, lora, *frozen])
