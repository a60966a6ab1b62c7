"""What the ranks run on, and in which precision."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from megatron_msm.config.precision import Fp8Config
from megatron_msm.config.section import PositiveInt, Section


class RuntimeConfig(Section):
    """What the ranks run on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes CUDA when torch sees a GPU."""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """Type of weights and activations. Gradients, optimizer state and main weights are fp32."""
    fp8: Fp8Config | None = None
    """FP8 for the linear layers' products; needs `dtype: bf16` and a GPU. Left out: none."""
    deterministic: bool = False
    """The same bits from the same step on a GPU, so that a resumed run equals one that was never
    stopped: kernels and reductions in a fixed order, which are slower. A CPU does so anyway."""
    threads_per_rank: PositiveInt | None = None
    """CPU threads of each rank. Left out: the machine's cores divided by its ranks."""
    stop_after_min: Annotated[float, Field(gt=0)] | None = None
    """Minutes after its start when the run saves after the step that it is in and ends with status
    75, as on SIGTERM: a time limit less a step and a save. Left out: only when it is told to."""
    timeout_min: Annotated[float, Field(gt=0)] = 30.0
    """Minutes that a collective waits for a silent rank before the run fails."""

    @property
    def precision(self) -> str:
        """The precision in a word or two: `bf16`, `bf16 with fp8 tensorwise (hybrid)`."""
        if self.fp8 is None:
            return self.dtype
        return f"{self.dtype} with fp8 {self.fp8.recipe} ({self.fp8.format})"

    @model_validator(mode="after")
    def _delayed_scaling_is_not_resumed(self) -> Self:
        if self.deterministic and self.fp8 is not None and self.fp8.recipe == "delayed":
            raise ValueError(
                "deterministic: true needs another fp8.recipe than 'delayed', whose history of "
                "scales is not in checkpoints: use 'tensorwise'"
            )
        return self

    @model_validator(mode="after")
    def _fp8_needs_bf16(self) -> Self:
        if self.fp8 is not None and self.dtype != "bf16":
            raise ValueError(
                f"fp8 needs dtype: bf16 for everything that is not a linear layer, found "
                f"{self.dtype!r}"
            )
        return self
