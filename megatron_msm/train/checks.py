"""What can be checked before a rank starts: a run that cannot work ends here. No torch."""

from collections.abc import Sequence
from pathlib import Path

from megatron_msm.config.data import DataConfig
from megatron_msm.config.run import RunConfig
from megatron_msm.data.loss_groups import LossGroups
from megatron_msm.data.packing.packings import Packings
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.checkpoint_folder import CheckpointState
from megatron_msm.formats.indexed_dataset import IndexedDataset
from megatron_msm.formats.manifest import DatasetManifest, dataset_file
from megatron_msm.formats.output_paths import check_output_folder
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, count_roles
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.batch_shape import batch_shape
from megatron_msm.models.sizes.freezing import frozen_keys
from megatron_msm.models.sizes.layout import check_layout
from megatron_msm.models.sizes.recompute_sizes import check_recompute
from megatron_msm.train.base import Base, find_base
from megatron_msm.train.checkpoints.adapter import check_adapter
from megatron_msm.train.checkpoints.disk_space import check_disk_space
from megatron_msm.train.reporting.trackers import check_wandb
from megatron_msm.train.resolved_run import ResolvedPhase, ResolvedRun, resolve_run
from megatron_msm.train.steps.schedule import check_schedule


def checked_run(config: RunConfig, packings: Packings | None = None) -> ResolvedRun:
    """Resolve a run file and check it against its base and its datasets; writes nothing.

    Args:
        config: The run file.
        packings: Remembers the packings, for other processes.

    Raises:
        ConfigError: `out` cannot be written or its disk is too small, the layout does not fit the
            model, a length its positions, or the device what is asked of it.
        CheckpointError: The base is incomplete or damaged.
        DataFormatError: A dataset is unfinished or was made with another tokenizer or template.
    """
    check_output_folder(config.out)
    _check_device(config)
    base = find_base(config)
    shape = read_model_shape(base.hf_folder)
    _check_model(config, base, shape)
    run = resolve_run(config, base, packings)
    for phase in run.phases:
        _check_phase(phase, base.state, shape)
        _check_loss_groups(phase, config.logging.loss_by)
    _check_held_out(run)
    check_disk_space(run)
    return run


def _check_model(config: RunConfig, base: Base, shape: ModelShape) -> None:
    batches = [batch_shape(phase) for phase in config.phases]
    check_layout(shape, config.parallel, batches, config.runtime.fp8)
    check_recompute(shape, config.memory)
    frozen_keys(shape, config.freeze)
    check_adapter(base.state, shape, config.lora, base.folder)
    check_wandb(config.logging.wandb)
    for phase in config.phases:
        if phase.seq_length > shape.max_position_embeddings:
            raise ConfigError(
                f"phases.{phase.name}.seq_length: {phase.seq_length} is more than the model's "
                f"{shape.max_position_embeddings} positions. Lower it."
            )


def _check_phase(phase: ResolvedPhase, state: CheckpointState, shape: ModelShape) -> None:
    config = phase.config
    try:
        check_schedule(
            config.schedule, num_steps=phase.num_steps, tokens_per_step=config.tokens_per_step
        )
    except ConfigError as error:
        raise ConfigError(f"phases.{config.name}.{error}") from None
    for source in phase.dataset.sources:
        _check_dataset_fits(source.prefix, source.manifest, state)
        _check_vocabulary(source.prefix, source.manifest, shape)
        _check_roles(source.prefix, config.data)
    for data in phase.held_out:
        _check_dataset_fits(data.prefix, data.blend.dataset.manifests[0], state)
        _check_vocabulary(data.prefix, data.blend.dataset.manifests[0], shape)


def _check_loss_groups(phase: ResolvedPhase, fields: Sequence[str]) -> None:
    try:
        LossGroups(phase.dataset, fields)
    except DataFormatError as error:
        raise DataFormatError(f"logging.loss_by: {error}") from None


def _check_device(config: RunConfig) -> None:
    """Refuse what needs a GPU where the ranks are told to run on the CPU."""
    if config.runtime.device != "cpu":
        return
    if config.runtime.fp8 is not None:
        raise ConfigError(
            "runtime.fp8: it runs on GPUs only, and runtime.device is cpu. Leave one of them out."
        )
    if config.memory.optimizer_offload:
        raise ConfigError(
            f"memory.optimizer_offload: {config.memory.optimizer_offload}, but runtime.device is "
            "cpu, where the optimizer is already. Set it to 0."
        )


def _check_held_out(run: ResolvedRun) -> None:
    """Refuse validation data that a phase trains on, by the tokens and not by the path."""
    trained = {
        source.manifest.sha256: (phase.config.name, source.prefix)
        for phase in run.phases
        for source in phase.dataset.sources
    }
    for phase in run.phases:
        config = phase.config.validation
        for data in () if config is None or config.admit_training_data else phase.held_out:
            found = trained.get(data.blend.dataset.manifests[0].sha256)
            if found is not None:
                raise ConfigError(
                    f"phases.{phase.config.name}.validation.prefixes: {data.prefix} has the tokens "
                    f"of {found[1]}, which phase {found[0]} trains on, so it is not held out. Give "
                    f"other data, or set phases.{phase.config.name}.validation."
                    "admit_training_data=true."
                )


def _check_roles(prefix: Path, data: DataConfig) -> None:
    """Refuse rows that were set aside to measure with."""
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


def _check_vocabulary(prefix: Path, manifest: DatasetManifest, shape: ModelShape) -> None:
    """Refuse ids without a row of the embedding: rows of its padding would be trained and lost."""
    if manifest.vocab_size <= shape.vocab_size:
        return
    largest = IndexedDataset(prefix).largest_token()
    if largest >= shape.vocab_size:
        raise DataFormatError(
            f"{prefix}: has token id {largest}, and the model's embedding {shape.vocab_size} rows. "
            "Prepare the data with a tokenizer that fits the model, or give the model more rows."
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
