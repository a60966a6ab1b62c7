"""What the ranks run on, and in which precision."""

from typing import Annotated, Literal

from pydantic import Field

from megatron_msm.config.section import PositiveInt, Section


class RuntimeConfig(Section):
    """What the ranks run on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA when torch sees a GPU."""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """Type of weights and activations. Gradients, optimizer state and main weights are fp32."""
    threads_per_rank: PositiveInt | None = None
    """CPU threads of each rank. Left out: the machine's cores divided by its ranks."""
    timeout_min: Annotated[float, Field(gt=0)] = 30.0
    """Minutes that a collective waits for a silent rank before the run fails."""
