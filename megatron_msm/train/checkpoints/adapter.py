"""Whether a run's LoRA adapters and those of its base checkpoint go together. No torch."""

from pathlib import Path

from megatron_msm.config.lora import LoraConfig
from megatron_msm.errors import ConfigError
from megatron_msm.formats.checkpoint_folder import AdapterRecord, CheckpointState
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.sizes.adapter_sizes import projections


def adapter_record(lora: LoraConfig | None) -> AdapterRecord | None:
    """Return what a checkpoint of the run records about its adapters."""
    return None if lora is None else lora.record


def check_targets(shape: ModelShape, lora: LoraConfig | None) -> None:
    """Check that the model has every projection that adapters are asked for.

    Raises:
        ConfigError: It has experts there.
    """
    possible = projections(shape)
    without = [target for target in (lora.targets if lora else ()) if target not in possible]
    if without:
        raise ConfigError(
            f"lora.targets: {', '.join(without)} are experts in this model, which cannot have "
            f"adapters. Use lora.targets=[{', '.join(possible)}]."
        )


def check_adapter(
    base: CheckpointState, shape: ModelShape, lora: LoraConfig | None, folder: Path
) -> None:
    """Check that a run can start from a checkpoint: with new adapters, or with the same ones.

    Raises:
        ConfigError: The model has experts where adapters are asked for, or the checkpoint has
            adapters and the run has none, or others.
    """
    check_targets(shape, lora)
    wanted = adapter_record(lora)
    if base.adapter is None or base.adapter == wanted:
        return
    asked = "none" if wanted is None else _in_words(wanted)
    raise ConfigError(
        f"lora: {folder} holds LoRA adapters ({_in_words(base.adapter)}), the run asks for "
        f"{asked}. Write the same `lora:` section to train them on, or merge them first: "
        "`msm convert export` and "
        "`msm convert import`."
    )


def _in_words(adapter: AdapterRecord) -> str:
    scale = ", rank-stabilized" if adapter.rank_stabilized else ""
    return f"rank {adapter.rank}, alpha {adapter.alpha:g}{scale}, {list(adapter.targets)}"
