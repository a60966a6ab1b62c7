"""The typed content of a RUN.yaml: one model, one layout, and phases trained one after the other.

Each field's text says meaning, unit and special values. Unknown keys are refused. What can be
derived (data parallel size, steps, accumulation) is computed, never written down twice.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.json_schema import JsonSchemaValue

from megatron_msm.config.checkpoint import CheckpointConfig
from megatron_msm.config.data import DataConfig
from megatron_msm.config.logging import LoggingConfig, ValidationConfig
from megatron_msm.config.lora import LoraConfig
from megatron_msm.config.memory import MemoryConfig
from megatron_msm.config.optimization import (
    DurationConfig,
    LossSpikeConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.precision import Fp8Recipe
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.config.section import HfFolder, PositiveInt, Section

_WITHOUT_FP8_WEIGHTS: dict[Fp8Recipe, str] = {
    "delayed": (
        "a phase begins without a history of scales, and the first updates of weights in FP8 are "
        "lost"
    ),
    "mxfp8": (
        "megatron-core gathers those weights through the gradients' buffer, which this trainer "
        "does not fill before the forward pass"
    ),
}
"""Recipes that cannot keep weights in FP8, with the reason (docs/design/cuda-on-cpu.md)."""


class ModelConfig(Section):
    """Where the weights come from: a checkpoint, or a Hugging Face folder."""

    checkpoint: Path | None = None
    """Megatron checkpoint to start from, as `msm convert import` writes it."""
    hf: HfFolder | None = None
    """Hugging Face folder to start from, or ORG/NAME of the hub after `msm fetch`: each rank reads
    its part of the weights, and no checkpoint of them is written."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.checkpoint is None) == (self.hf is None):
            raise ValueError("give exactly one of `checkpoint` and `hf`")
        return self

    @property
    def source(self) -> Path:
        """The folder that the weights come from."""
        source = self.checkpoint or self.hf
        assert source is not None
        return source


def _either_batch_size(schema: JsonSchemaValue) -> None:
    """Say in the JSON schema that a phase's batch is given in sequences or in positions."""
    ways = ("global_batch_size", "global_batch_tokens")
    schema["required"].remove(ways[0])
    schema["anyOf"] = [{"required": [way]} for way in ways]


class PhaseConfig(Section):
    """One training phase with its own data, length, batch, schedule and checkpoint folder."""

    model_config = ConfigDict(json_schema_extra=_either_batch_size)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Names the checkpoint folder: `midtrain`, `sft`."""
    data: DataConfig
    seq_length: Annotated[int, Field(ge=2)]
    """Positions of a packed sequence. Longer documents are split, longer chats refused."""
    micro_batch_size: PositiveInt = 1
    """Packed sequences that a rank computes at once."""
    global_batch_size: PositiveInt
    """Packed sequences of one optimizer step over all data parallel ranks. Each rank's share is
    computed in as many micro batches as it takes. Left out when `global_batch_tokens` says it."""
    global_batch_tokens: PositiveInt | None = None
    """The same in positions: a multiple of `seq_length`."""
    duration: DurationConfig
    optimizer: OptimizerConfig
    optimizer_state: Literal["fresh", "carry"] = "fresh"
    """What the phase begins with. `fresh`: moments of zero, main weights from the weights that the
    phase before ended with. `carry`: moments, step count and main weights of the phase before,
    which then keeps them in its last checkpoint."""
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    loss_spike: LossSpikeConfig | None = None
    """Left out: a loss spike changes nothing."""
    validation: ValidationConfig | None = None
    """Left out: no validation."""

    @model_validator(mode="before")
    @classmethod
    def _sequences_from_tokens(cls, content: object) -> object:
        if not isinstance(content, dict) or "global_batch_size" in content:
            return content
        tokens, length = content.get("global_batch_tokens"), content.get("seq_length")
        if isinstance(tokens, int) and isinstance(length, int) and 0 < length <= tokens:
            return {**content, "global_batch_size": tokens // length}
        return content

    @model_validator(mode="after")
    def _batch_is_whole(self) -> Self:
        tokens = self.global_batch_tokens
        if tokens is not None and tokens != self.tokens_per_step:
            raise ValueError(
                f"global_batch_tokens {tokens} is not {self.global_batch_size} sequences of "
                f"{self.seq_length} positions = {self.tokens_per_step}; give a multiple of "
                "seq_length, and leave global_batch_size out"
            )
        return self

    @property
    def tokens_per_step(self) -> int:
        """Positions of one optimizer step, padding included."""
        return self.global_batch_size * self.seq_length


class RunConfig(Section):
    """A whole RUN.yaml."""

    out: Path
    """Run folder: resolved configuration, metrics, one checkpoint folder a phase."""
    seed: Annotated[int, Field(ge=0)] = 1234
    """Seed of the data order and of every random state."""
    model: ModelConfig
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights; every phase goes on with the same adapters.
    Left out: all weights are trained."""
    freeze: tuple[str, ...] = ()
    """Weights that stay as they are, by patterns of their Hugging Face names, such as
    `model.embed_tokens.*` or `model.layers.[0-3].*`. Not with `lora`, which freezes all."""
    runtime: RuntimeConfig = RuntimeConfig()
    memory: MemoryConfig = MemoryConfig()
    parallel: ParallelConfig = ParallelConfig()
    logging: LoggingConfig = LoggingConfig()
    phases: Annotated[tuple[PhaseConfig, ...], Field(min_length=1)]
    """Trained in this order; each starts from the weights the one before ended with."""

    @model_validator(mode="after")
    def _phase_names_differ(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phase names must differ, found {names}")
        return self

    @model_validator(mode="after")
    def _freeze_without_lora(self) -> Self:
        if self.freeze and self.lora is not None:
            raise ValueError(
                f"freeze: {list(self.freeze)} with lora, under which every weight of the model is "
                "frozen: leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _something_to_carry(self) -> Self:
        first = self.phases[0]
        if first.optimizer_state == "carry":
            raise ValueError(
                f"phase {first.name!r}: optimizer_state: carry needs a phase before it in the same "
                "run file, and it is the first: use fresh"
            )
        return self

    @model_validator(mode="after")
    def _fp8_weights_are_trained(self) -> Self:
        fp8 = self.runtime.fp8
        if fp8 is not None and fp8.param_gather and fp8.recipe in _WITHOUT_FP8_WEIGHTS:
            raise ValueError(
                f"runtime.fp8: param_gather: true with recipe {fp8.recipe!r} is not supported: "
                f"{_WITHOUT_FP8_WEIGHTS[fp8.recipe]}. Use param_gather: false, or recipe "
                "'tensorwise' or 'blockwise'"
            )
        return self

    @model_validator(mode="after")
    def _global_batch_divides(self) -> Self:
        for phase in self.phases:
            per_step = phase.micro_batch_size * self.parallel.data
            if phase.global_batch_size % per_step:
                raise ValueError(
                    f"phase {phase.name!r}: global_batch_size {phase.global_batch_size} is not a "
                    f"multiple of micro_batch_size {phase.micro_batch_size} x data parallel "
                    f"{self.parallel.data} = {per_step}"
                )
        return self

    def num_micro_batches(self, phase: PhaseConfig) -> int:
        """Return the micro batches that each data parallel rank computes per optimizer step."""
        return phase.global_batch_size // (phase.micro_batch_size * self.parallel.data)
