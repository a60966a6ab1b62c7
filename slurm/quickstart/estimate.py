"""How long training will take on this machine's CPU, from one second of matrix products."""

import time
from collections.abc import Sequence

from megatron_msm.models.hf_config import read_model_shape
from slurm.stages.stage import Stage

# Share of the plain matrix-product rate that a whole training step reached for SmolLM2-135M on two
# cores (attention, norms, the loss over 49k tokens and gradient sums have the rest).
STEP_EFFICIENCY = 0.4
FLOPS_PER_PARAMETER_AND_TOKEN = 6  # forward 2, backward 4: arXiv 2001.08361, section 2.1


def estimate_line(stages: Sequence[Stage]) -> str:
    """Say how long the training stages should take here."""
    training = [stage for stage in stages if stage.run is not None]
    num_tokens = sum(stage.num_tokens or 0 for stage in training)
    assert training[0].model is not None
    num_parameters = read_model_shape(training[0].model).num_parameters
    flops_per_s = matmul_flops_per_s("bf16")
    seconds = training_seconds(num_parameters, num_tokens, flops_per_s=flops_per_s)
    return (
        f"training on {num_tokens:,} tokens should take about {seconds / 60:.0f} min here "
        f"({num_parameters / 1e6:.0f}M parameters, matrix products at "
        f"{flops_per_s / 1e9:.0f} GFLOP/s); evaluations and conversions add 2 to 3 min"
    )


def matmul_flops_per_s(dtype: str) -> float:
    """Measure this machine's matrix products, [512, 768] x [768, 3072], for half a second."""
    import torch

    torch_dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    left, right = torch.ones(512, 768, dtype=torch_dtype), torch.ones(768, 3072, dtype=torch_dtype)
    left @ right
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.5:
        left @ right
        count += 1
    return 2 * 512 * 768 * 3072 * count / (time.perf_counter() - started)


def training_seconds(num_parameters: int, num_tokens: int, *, flops_per_s: float) -> float:
    """Return the expected seconds of training on `num_tokens` tokens."""
    flops = FLOPS_PER_PARAMETER_AND_TOKEN * num_parameters * num_tokens
    return flops / (STEP_EFFICIENCY * flops_per_s)
