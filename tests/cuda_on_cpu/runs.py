"""Runs of `msm train` on an emulated GPU, a few steps of two phases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.training_runs import metrics_rows, msm

# Dimensions that 128 divides, for the block recipes; heads that two tensor parallel ranks divide.
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
_SHORT = (
    *("parallel={data: 1}", "runtime.dtype=bf16"),
    *("phases.midtrain.duration={steps: 4}", "phases.sft.duration={steps: 3}"),
    *(f"phases.{name}.seq_length=128" for name in ("midtrain", "sft")),
    *(f"phases.{name}.checkpoint.save_interval_steps=2" for name in ("midtrain", "sft")),
)
_NOT_EMULATED = {"CUDA_ON_CPU": "", "PYTHONPATH": ""}


@dataclass(frozen=True)
class Trained:
    """What a run left behind."""

    folder: Path
    """Holds `train`."""
    losses: list[float]
    norms: list[float]


def train(prepared: Path, name: str, *changes: str, gpu: str = "H100") -> Trained:
    """Train on emulated GPUs; `runtime.device=cpu` among the changes trains on the CPU itself.

    Args:
        prepared: What `prepare_run` made.
        name: Folder of the run.
        changes: Of the run file.
        gpu: Which GPU is emulated.
    """
    on_cpu = "runtime.device=cpu" in changes
    environment = _NOT_EMULATED if on_cpu else {"CUDA_ON_CPU": gpu}
    device = () if on_cpu else ("runtime.device=cuda",)
    settings = (*_SHORT, *device, *changes, f"out={name}/train")
    done = msm("train", "run.yaml", *settings, cwd=prepared, **environment)
    assert done.returncode == 0, done.stderr
    return trained(prepared / name)


def trained(folder: Path) -> Trained:
    """Read what a run left behind."""
    rows = metrics_rows(folder)
    losses, norms = (
        [float(row[key]) for row in rows] for key in ("loss/lm_nats", "optim/grad_norm")
    )
    return Trained(folder, losses, norms)


def fp8(recipe: str, **settings: Any) -> str:
    """Return a change of the run file that turns FP8 on."""
    fields = {"recipe": recipe, **settings}
    return "runtime.fp8={" + ", ".join(f"{name}: {_yaml(fields[name])}" for name in fields) + "}"


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def aligned(*changes: str, rows: int) -> tuple[str, ...]:
    """Add that documents begin and end at multiples of some rows."""
    packing = (f"phases.{name}.data.packing.align={rows}" for name in ("midtrain", "sft"))
    return (*changes, *packing)
