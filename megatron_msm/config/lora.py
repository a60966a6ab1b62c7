"""Low-rank adapters: train two small matrices beside each frozen projection."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.formats.checkpoint_folder import AdapterRecord

LoraTarget = Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]


class LoraConfig(Section):
    """Low-rank adapters (arXiv 2106.09685). All other weights stay as they are."""

    rank: PositiveInt = 64
    """Inner size of each adapter."""
    alpha: Annotated[float, Field(gt=0)] = 128.0
    """The adapter's output is multiplied by alpha / rank."""
    rank_stabilized: bool = False
    """Multiply it by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732; PEFT's `use_rslora`)."""
    targets: Annotated[tuple[LoraTarget, ...], Field(min_length=1)] = (
        "linear_qkv",
        "linear_proj",
        "linear_fc1",
        "linear_fc2",
    )
    """Megatron's projections with adapters. `linear_qkv` is Hugging Face's q_proj, k_proj and
    v_proj, each with an adapter of its own; `linear_fc1` is gate_proj and up_proj; `linear_proj` is
    o_proj and `linear_fc2` down_proj."""

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"name each target once, found {list(self.targets)}")
        return self

    @property
    def record(self) -> AdapterRecord:
        """What a checkpoint of the run records about its adapters."""
        return AdapterRecord.model_validate(self.model_dump())
