"""Everything that can be checked and planned before a rank starts. No torch.

A run that cannot work ends here with one message; a run that can is described: sequences, steps and
tokens of each phase.
"""

from dataclasses import dataclass
from pathlib import Path

from megatron_msm.config.data import DataConfig
from megatron_msm.config.run import PhaseConfig, RunConfig
from megatron_msm.data.accounting import account
from megatron_msm.data.blend import Blend, build_blend
from megatron_msm.data.order import PackOrder
from megatron_msm.data.packed_dataset import PackedDataset
from megatron_msm.errors import ConfigError, DataFormatError, MsmError
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    CheckpointState,
    read_checkpoint_state,
    resolve_checkpoint,
)
from megatron_msm.formats.files import sha256_of_json
from megatron_msm.formats.manifest import DatasetManifest, dataset_file
from megatron_msm.models.hf_config import ModelShape, read_model_shape
from megatron_msm.models.sizes.adapter_sizes import num_adapter_parameters
from megatron_msm.models.sizes.batch_shape import batch_shape
from megatron_msm.models.sizes.layout import check_layout
from megatron_msm.plan.weights import weights_of_rank
from megatron_msm.train.checkpoints.adapter import check_adapter
from megatron_msm.train.reporting.trackers import check_wandb
from megatron_msm.train.steps.schedule import check_schedule
from megatron_msm.train.steps.validation import HeldOut, held_out_data

# Stages of a few dozen steps looked trained and were not (method.md section 7, rows 3 and 30).
FEW_STEPS = 100


@dataclass(frozen=True)
class PhasePlan:
    """What one phase will do."""

    config: PhaseConfig
    blend: Blend
    seed: int
    config_sha256: str
    """Hash of everything that decides the phase's result but the weights it starts from."""
    held_out: tuple[HeldOut, ...] = ()
    """Data of the validation."""

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
class RunPlan:
    """A checked run."""

    config: RunConfig
    base_folder: Path
    base_state: CheckpointState
    shape: ModelShape
    phases: tuple[PhasePlan, ...]

    @property
    def hf_folder(self) -> Path:
        """The base's small Hugging Face files: config, tokenizer, chat template."""
        return self.base_folder / HF_FOLDER


def plan_run(config: RunConfig) -> RunPlan:
    """Check a run against its checkpoint and datasets and work out its steps.

    Raises:
        ConfigError: The layout does not fit the model, or a length its positions.
        CheckpointError: The base checkpoint is incomplete.
        DataFormatError: A dataset is unfinished or was made with another tokenizer or template.
    """
    folder = _base_folder(config)
    state = read_checkpoint_state(folder)
    shape = read_model_shape(folder / HF_FOLDER)
    batches = [batch_shape(phase) for phase in config.phases]
    check_layout(shape, config.parallel, batches, config.runtime.fp8)
    check_adapter(state, shape, config.lora, folder)
    check_wandb(config.logging.wandb)
    phases = tuple(
        _plan_phase(config, phase, state, shape, seed=config.seed + index)
        for index, phase in enumerate(config.phases)
    )
    return RunPlan(config, folder, state, shape, phases)


def _base_folder(config: RunConfig) -> Path:
    model = config.model
    if model.hf is None:
        return resolve_checkpoint(model.source)
    # Imported here: it brings torch, and this module is loaded to build the command line.
    from megatron_msm.train.checkpoints.hf_base import prepare_base

    return prepare_base(model.hf, config.out, timeout_min=config.runtime.timeout_min)


def _plan_phase(
    config: RunConfig, phase: PhaseConfig, state: CheckpointState, shape: ModelShape, *, seed: int
) -> PhasePlan:
    if phase.seq_length > shape.max_position_embeddings:
        raise ConfigError(
            f"phases.{phase.name}.seq_length: {phase.seq_length} is more than the model's "
            f"{shape.max_position_embeddings} positions. Lower it."
        )
    blend = _blend(phase, seed)
    try:
        check_schedule(
            phase.schedule, num_steps=blend.num_steps, tokens_per_step=phase.tokens_per_step
        )
    except ConfigError as error:
        raise ConfigError(f"phases.{phase.name}.{error}") from None
    for source in blend.dataset.sources:
        _check_dataset_fits(source.prefix, source.manifest, state)
        _check_roles(source.prefix, phase.data)
    held_out = held_out_data(phase)
    for data in held_out:
        _check_dataset_fits(data.prefix, data.blend.dataset.manifests[0], state)
    return PhasePlan(
        config=phase,
        blend=blend,
        seed=seed,
        config_sha256=_phase_identity(config, phase, blend.dataset, seed),
        held_out=held_out,
    )


def _blend(phase: PhaseConfig, seed: int) -> Blend:
    try:
        return build_blend(
            phase.data,
            phase.duration,
            seq_length=phase.seq_length,
            global_batch_size=phase.global_batch_size,
            seed=seed,
        )
    except MsmError as error:
        raise type(error)(f"phases.{phase.name}: {error}") from None


# Settings of a phase that do not change its result, or that are looked at on their own.
_WITHOUT_EFFECT = {"checkpoint", "data", "global_batch_tokens", "micro_batch_size", "validation"}


def _phase_identity(
    config: RunConfig, phase: PhaseConfig, dataset: PackedDataset, seed: int
) -> str:
    # Where the data lies and how often it is saved changes nothing; the data's content, how much of
    # it is drawn and how it is packed do.
    settings = phase.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    data = [manifest.sha256 for manifest in dataset.manifests]
    amounts = [source.amounts for source in phase.data.all_sources]
    packing = phase.data.packing.model_dump(mode="json")
    if phase.loss_spike is not None:  # goes back to a checkpoint
        settings["save_interval_steps"] = phase.checkpoint.save_interval_steps
    lora = config.lora and config.lora.model_dump(mode="json")
    precision = config.runtime.model_dump(mode="json", include={"dtype", "fp8"})
    return sha256_of_json([settings, data, amounts, packing, seed, precision, lora])


def _check_roles(prefix: Path, data: DataConfig) -> None:
    """Refuse rows that were set aside to measure with."""
    # Imported here: it brings pyarrow, and this module is loaded to build the command line.
    from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, count_roles

    roles = count_roles(dataset_file(prefix, PROVENANCE_SUFFIX))
    refused = {
        role: count for role, count in roles.items() if role is not None and role not in data.roles
    }
    if refused:
        found = ", ".join(f"{count} with role {role!r}" for role, count in refused.items())
        raise DataFormatError(
            f"{prefix}: has rows that are not for training: {found}. Prepare a dataset without "
            f"them, or admit them with data.roles: [{', '.join([*data.roles, *refused])}]."
        )


def _check_dataset_fits(prefix: Path, manifest: DatasetManifest, state: CheckpointState) -> None:
    if manifest.tokenizer_sha256 != state.tokenizer_sha256:
        raise DataFormatError(
            f"{prefix}: made with tokenizer {manifest.tokenizer_sha256[:12]}, but the checkpoint's "
            f"is {state.tokenizer_sha256[:12]}. Prepare the data with the tokenizer of the model "
            "that is trained."
        )
    if manifest.kind == "chats" and manifest.chat_template_sha256 != state.chat_template_sha256:
        raise DataFormatError(
            f"{prefix}: rendered with chat template {str(manifest.chat_template_sha256)[:12]}, but "
            f"the checkpoint's is {str(state.chat_template_sha256)[:12]}. A model trained under "
            "one template and served under another misbehaves; prepare the chats with the model's "
            "own, or import the model with the template you want."
        )


def describe(plan: RunPlan) -> list[str]:
    """Return the start-up summary, one line each."""
    lines = [
        f"model      {plan.shape.model_type}, {plan.shape.num_layers} layers, hidden "
        f"{plan.shape.hidden_size}, from {plan.config.model.hf or plan.base_folder}",
        f"layout     {plan.config.parallel.summary}, {plan.config.runtime.precision}",
        f"weights    {_weights_of_ranks(plan)} on each rank",
    ]
    if plan.config.lora is not None:
        lora, trainable = plan.config.lora, num_adapter_parameters(plan.shape, plan.config.lora)
        lines.append(
            f"lora       rank {lora.rank}, alpha {lora.alpha:g}, {', '.join(lora.targets)}: "
            f"{trainable:,} trainable parameters beside {plan.shape.num_parameters:,} frozen ones"
        )
    for phase in plan.phases:
        lines += _describe_phase(phase, plan.config.num_microbatches(phase.config))
    return lines


def _weights_of_ranks(plan: RunPlan) -> str:
    parallel = plan.config.parallel
    counts = {
        weights_of_rank(plan.shape, parallel, plan.config.lora, rank).total
        for rank in range(parallel.pipeline)
    }
    lowest, highest = min(counts), max(counts)
    return f"{highest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"


def _describe_phase(phase: PhasePlan, num_microbatches: int) -> list[str]:
    config, accounts = phase.config, account(phase.blend)
    lines = [
        f"{config.name:<10} {phase.num_steps} steps of {config.global_batch_size} x "
        f"{config.seq_length} = {config.tokens_per_step:,} positions ({num_microbatches} micro "
        f"batches on each rank): {phase.processed_tokens:,} processed tokens, "
        f"{sum(a.loss_tokens for a in accounts):,} with loss"
    ]
    for source, drawn in zip(phase.dataset.sources, accounts, strict=True):
        loss = "loss" if source.masks is None else "assistant (loss)"
        plan = source.plan
        padding = f", {plan.align_cost:.1%} spent on alignment" if plan.align > 1 else ""
        lines.append(
            f"  {drawn.prefix}: {drawn.rows:,} rows ({drawn.epochs:.2f} epochs), "
            f"{drawn.loss_tokens:,} {loss} of {drawn.rendered_tokens:,} rendered tokens, "
            f"{drawn.processed_tokens:,} processed in {drawn.packs:,} packed sequences "
            f"({plan.fill:.1%} full{padding})"
        )
        if drawn.packs == 0:
            lines.append(
                f"warning    {drawn.prefix} is not drawn from at all: its share is less than one "
                "packed sequence. Raise its weight, or the duration."
            )
    lines += [
        f"  {data.prefix}: held out, {data.num_batches} batches every "
        f"{config.validation.interval_steps} steps"
        for data in phase.held_out
        if config.validation is not None
    ]
    if phase.num_steps < FEW_STEPS:
        lines.append(
            f"warning    {config.name} has only {phase.num_steps} optimizer steps; under "
            f"{FEW_STEPS} a stage often changes little. Lower global_batch_size or add epochs."
        )
    return lines
