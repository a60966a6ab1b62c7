"""GPUs that runs are planned for and measured on: memory, peak rates, links. No torch.

Rates are the vendor's for dense matrices; data sheets print twice as much, with sparsity. fp32 is
without TF32, as torch computes it by default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from megatron_msm.errors import ConfigError

MatmulPrecision = Literal["fp32", "bf16", "fp8"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU model as it sits in a node of eight."""

    name: str
    memory_gib: float
    """What the driver shows as total, in GiB."""
    peak_tflops: Mapping[MatmulPrecision, float]
    """Dense matrix products, TFLOP/s."""
    memory_gb_per_s: float
    nvlink_gb_per_s: float
    """Inside a node, one direction."""
    network_gb_per_s: float
    """Between nodes, one direction: the network card that such a node usually has for each GPU."""


GPUS: Mapping[str, Gpu] = {
    # Source: NVIDIA A100 data sheet (312 bf16, 600 GB/s NVLink both ways); DGX A100: 200 Gbit/s.
    "a100": Gpu(
        name="A100 SXM 80GB",
        memory_gib=79.2,
        peak_tflops={"fp32": 19.5, "bf16": 312.0},
        memory_gb_per_s=2039.0,
        nvlink_gb_per_s=300.0,
        network_gb_per_s=25.0,
    ),
    # Source: NVIDIA H100 data sheet (SXM: 1,979 bf16 and 3,958 fp8 with sparsity, 900 GB/s NVLink
    # both ways); DGX H100: 400 Gbit/s.
    "h100": Gpu(
        name="H100 SXM 80GB",
        memory_gib=79.6,
        peak_tflops={"fp32": 67.0, "bf16": 989.4, "fp8": 1978.9},
        memory_gb_per_s=3350.0,
        nvlink_gb_per_s=450.0,
        network_gb_per_s=50.0,
    ),
    # Source: NVIDIA H200 data sheet; the same compute as the H100.
    "h200": Gpu(
        name="H200 SXM 141GB",
        memory_gib=140.4,
        peak_tflops={"fp32": 67.0, "bf16": 989.4, "fp8": 1978.9},
        memory_gb_per_s=4800.0,
        nvlink_gb_per_s=450.0,
        network_gb_per_s=50.0,
    ),
    # Source: NVIDIA HGX B200 data sheet (for 8: 36 PFLOP/s bf16 and 72 fp8, with sparsity; 1.8 TB/s
    # NVLink both ways); DGX B200: 400 Gbit/s.
    "b200": Gpu(
        name="B200 SXM 180GB",
        memory_gib=178.4,
        peak_tflops={"fp32": 75.0, "bf16": 2250.0, "fp8": 4500.0},
        memory_gb_per_s=8000.0,
        nvlink_gb_per_s=900.0,
        network_gb_per_s=50.0,
    ),
}


def gpu_named(name: str) -> Gpu:
    """Return a GPU of the table, in whatever case its name is written.

    Raises:
        ConfigError: The table does not have it.
    """
    if name.lower() not in GPUS:
        raise ConfigError(f"--gpu: {name!r} is not known. Use one of {', '.join(GPUS)}.")
    return GPUS[name.lower()]


def gpu_of_device(device_name: str) -> Gpu | None:
    """Return the GPU that torch calls `NVIDIA H100 80GB HBM3`, None when the table lacks it."""
    words = device_name.lower().replace("-", " ").split()
    return next((gpu for name, gpu in GPUS.items() if name in words), None)
