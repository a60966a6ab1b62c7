"""How replies are sampled: the part that suites of all generating evaluations share."""

from pathlib import Path
from typing import Literal, TypedDict

from pydantic import Field

from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.formats.json_types import JsonObject


class InspectArguments(TypedDict):
    """What the Inspect task of every generating evaluation takes."""

    samples: int
    temperature: float
    max_tokens: int
    seed: int


class SamplingSettings(Section):
    """Common settings; each evaluation adds its own."""

    judge: Path
    """JUDGE.yaml; `evals/judging/judge.py` shows one."""
    samples: PositiveInt
    """Replies to each prompt."""
    temperature: float = Field(default=0.7, ge=0)
    """0 takes the likeliest token each time."""
    max_tokens: PositiveInt = 4096
    """Limit of a reply. What is cut off is counted."""
    thinking: bool | None = None
    """For chat templates with the variable `enable_thinking`; left out, the template decides."""
    seed: int = Field(default=0, ge=0)
    """Seeds the random streams of replies: each prompt and each repetition has its own."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Precision, where the model runs in this process."""
    batch_size: PositiveInt = 8
    """Replies sampled together, where the model runs in this process."""
    server: Path | None = None
    """SERVER.yaml: a server that is started for this evaluation and ended after it;
    `evals/models/own_server.py` shows one. Left out: this process, or `--server`."""
    concurrency: PositiveInt = 32
    """Replies at once, where a server writes them."""

    @property
    def inspect_arguments(self) -> InspectArguments:
        """What of these the Inspect task takes."""
        return {
            "samples": self.samples,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }

    @property
    def protocol(self) -> JsonObject:
        """What of these decides a number and has no field of its own in the protocol."""
        chosen = {"max_tokens", "thinking", "seed"}
        return self.model_dump(mode="json", include=chosen)
