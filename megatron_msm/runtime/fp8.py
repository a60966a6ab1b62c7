"""FP8: what a recipe asks of a machine, and its settings in megatron-core's words. No torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from megatron_msm.config.precision import Fp8Config, Fp8Recipe

Version = tuple[int, int]


@dataclass(frozen=True)
class Machine:
    """The facts of a machine that decide whether FP8 runs on it."""

    gpu: str | None
    """Name of the GPU; None when torch sees none."""
    compute_capability: Version | None
    """(9, 0) is Hopper, (10, 0) Blackwell."""
    cuda: Version | None
    """Version of the CUDA libraries that torch was built with."""
    transformer_engine: Version | None
    """None when it is not installed."""


@dataclass(frozen=True)
class _Needs:
    """What a recipe needs."""

    transformer_engine: Version
    """Source: megatron-core 0.16.1, fp8_utils.py, `get_fp8_recipe`."""
    compute_capability: Version
    """Source: Transformer Engine 2.20, pytorch/quantization.py, `_compute_*_support`."""
    multiple: int
    """Every dimension of a matrix product is a multiple of this. Source: Transformer Engine 2.20,
    pytorch/utils.py `assert_dim_for_fp8_exec` for activations and their transposes, and
    `is_quantizable` of the block formats."""
    cuda: Version = (12, 0)
    below_capability: Version = (99, 0)


_NEEDS: dict[Fp8Recipe, _Needs] = {
    "delayed": _Needs((2, 0), (8, 9), 16),
    "tensorwise": _Needs((2, 2), (8, 9), 16),
    "blockwise": _Needs((2, 3), (9, 0), 128, cuda=(12, 9)),
    "mxfp8": _Needs((2, 1), (10, 0), 32, below_capability=(12, 0)),
}

RECIPES = tuple(_NEEDS)


def dimension_multiple(fp8: Fp8Config) -> int:
    """Return what every dimension of an FP8 matrix product is a multiple of."""
    return _NEEDS[fp8.recipe].multiple


def obstacles(fp8: Fp8Config, machine: Machine) -> Iterator[str]:
    """Yield a sentence for each thing that the machine lacks for a recipe."""
    needs, recipe = _NEEDS[fp8.recipe], f"recipe {fp8.recipe!r}"
    if machine.compute_capability is None:
        yield f"{recipe} needs a GPU, and torch sees none."
    elif machine.compute_capability < needs.compute_capability:
        yield (
            f"{recipe} needs compute capability {_text(needs.compute_capability)} or higher, but "
            f"{machine.gpu} has {_text(machine.compute_capability)}."
        )
    elif machine.compute_capability >= needs.below_capability:
        yield (
            f"{recipe} is not there yet for compute capability "
            f"{_text(needs.below_capability)} and higher; {machine.gpu} has "
            f"{_text(machine.compute_capability)}."
        )
    if machine.compute_capability is not None and (machine.cuda or (0, 0)) < needs.cuda:
        yield (
            f"{recipe} needs a torch built with CUDA {_text(needs.cuda)} or later, found "
            f"{_text(machine.cuda)}."
        )
    if (machine.transformer_engine or (0, 0)) < needs.transformer_engine:
        yield (
            f"{recipe} needs Transformer Engine {_text(needs.transformer_engine)} or later, found "
            f"{_text(machine.transformer_engine)}: pip install 'megatron-msm[gpu]'."
        )


def _text(version: Version | None) -> str:
    return "none" if version is None else ".".join(map(str, version))


@dataclass(frozen=True)
class MegatronPrecision:
    """Fields of megatron-core's three configurations that FP8 sets."""

    transformer: Mapping[str, object]
    """Fields of TransformerConfig."""
    data_parallel: Mapping[str, object]
    """Fields of DistributedDataParallelConfig."""
    optimizer: Mapping[str, object]
    """Fields of OptimizerConfig."""


def megatron_precision(fp8: Fp8Config | None) -> MegatronPrecision:
    """Translate our FP8 settings to megatron-core's. The only place that does."""
    if fp8 is None:
        return MegatronPrecision({}, {}, {})
    # Weights in mxfp8 have two copies, of which one is gathered into the gradients' buffer.
    reuses_buffer = {
        "reuse_grad_buf_for_mxfp8_param_ag": fp8.recipe == "mxfp8" and fp8.param_gather
    }
    return MegatronPrecision(
        transformer={
            "fp8": fp8.format,
            "fp8_recipe": fp8.recipe,
            "fp8_param": fp8.param_gather,
            "fp8_margin": fp8.margin,
            "fp8_amax_history_len": fp8.amax_history_steps,
            "fp8_amax_compute_algo": fp8.amax,
            "first_last_layers_bf16": bool(fp8.first_layers_bf16 or fp8.last_layers_bf16),
            "num_layers_at_start_in_bf16": fp8.first_layers_bf16,
            "num_layers_at_end_in_bf16": fp8.last_layers_bf16,
        },
        data_parallel={"fp8_param_gather": fp8.param_gather, **reuses_buffer},
        optimizer={"fp8_recipe": fp8.recipe, **reuses_buffer},
    )
