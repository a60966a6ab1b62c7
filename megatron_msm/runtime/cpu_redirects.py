"""Let megatron-core run in a process without CUDA.

megatron-core names CUDA in places that have nothing to do with kernels: where a buffer is
allocated, a stream is waited for, a random state is kept. `install` redirects exactly those to the
CPU, once, for the whole process. Only processes that train on the CPU call it. Each redirect names
a line of megatron-core 0.16.1 that needs it; when megatron-core asks `torch.get_default_device`
instead, this module goes away.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CPU = torch.device("cpu")
# distrib_optimizer.py:361, optimizer.py:671 sort parameters by these names and refuse others.
_CUDA_TYPE_NAMES = {
    "torch.FloatTensor": "torch.cuda.FloatTensor",
    "torch.BFloat16Tensor": "torch.cuda.BFloat16Tensor",
    "torch.HalfTensor": "torch.cuda.HalfTensor",
}


class _NoStream:
    """Stands for a CUDA stream or event: work on the CPU is done when the call returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        """Do nothing; everything is already done."""

    def synchronize(self) -> None:
        """Do nothing; everything is already done."""

    def record(self, *args: Any) -> None:
        """Do nothing; there is no queue to mark."""


class _CudaNamesMeanCpu(TorchFunctionMode):
    """Maps `device="cuda"` to the CPU and answers `Tensor.type()` with the name megatron expects.

    Needed by clip_grads.py:94 and :103, optimizer.py:481 and :485 (`device='cuda'`),
    optimizer.py:671 and distrib_optimizer.py:361 (`Tensor.type()`), language_module.py:244
    (`Tensor.cuda()`).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        if kwargs and _names_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": _CPU}
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.type and isinstance(result, str):
            return _CUDA_TYPE_NAMES.get(result, result)
        return result


def _names_cuda(device: Any) -> bool:
    return str(device).startswith("cuda") if isinstance(device, str | torch.device) else False


def _get_rng_state(device: Any = None) -> torch.Tensor:
    return torch.random.get_rng_state()


def _set_rng_state(state: torch.Tensor, device: Any = -1, graph_safe: bool = False) -> None:
    torch.random.set_rng_state(state)


def _l2_norm(
    chunk_size: int,
    noop_flag: torch.Tensor,
    tensor_lists: list[list[torch.Tensor]],
    per_tensor: bool,
    *args: Any,
) -> tuple[torch.Tensor, None]:
    """Norm over all tensors, in the interface of `local_multi_tensor_l2_norm` (utils.py:1198).

    That one adds millions of squares in float32 on the CPU, and torch's result is then off in the
    fourth digit (28M gradients of an embedding: 5e-5; 135M in one: 7e-3). Sums here are float64.
    """
    norms = [accurate_norm(tensor) for tensors in tensor_lists for tensor in tensors]
    return torch.stack(norms).norm().float().reshape(1), None


_NORM_BLOCK = 4096


def accurate_norm(tensor: torch.Tensor) -> torch.Tensor:
    """Return the L2 norm of a float32 tensor, a float64 scalar right to about six digits.

    Squares are added in float32 within short blocks, and the blocks in float64. Adding all in
    float64 would convert the tensor first: 0.8 s instead of 0.03 s for 135M elements on one core.
    """
    flat = tensor.reshape(-1)
    num_whole = flat.numel() // _NORM_BLOCK * _NORM_BLOCK
    of_blocks = torch.linalg.vector_norm(flat[:num_whole].view(-1, _NORM_BLOCK), dim=1)
    of_rest = torch.linalg.vector_norm(flat[num_whole:], dtype=torch.float64)
    norm: torch.Tensor = torch.linalg.vector_norm(
        torch.cat([of_blocks.double(), of_rest.reshape(1)])
    )
    return norm


def _unless_alone(collective: Callable[..., Any]) -> Callable[..., Any]:
    """Leave out a message to oneself, which gloo would copy a whole buffer for.

    In a group of one the shard that megatron-core reduces into, or gathers from, is the buffer
    itself. With 135M weights the two copies took about half a second of a step.
    """

    def call(output: torch.Tensor, input_: torch.Tensor, *, group: Any, **kwargs: Any) -> Any:
        if group.size() == 1 and output.data_ptr() == input_.data_ptr():
            return None
        return collective(output, input_, group=group, **kwargs)

    return call


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand for a call that has no meaning on the CPU."""


_installed: list[_CudaNamesMeanCpu] = []


def install() -> None:
    """Redirect megatron-core's CUDA names to the CPU for the rest of this process."""
    if _installed:
        return
    from megatron.core import utils as megatron_utils
    from megatron.core.distributed import param_and_grad_buffer as buffers
    from megatron.core.optimizer import clip_grads
    from megatron.core.tensor_parallel import random as megatron_random
    from megatron.core.transformer.moe import moe_utils

    cuda: Any = torch.cuda
    # layers.py:261 and :552, mappings.py:91, param_and_grad_buffer.py:783: buffers and gradients.
    cuda.current_device = lambda: _CPU
    # parallel_state.py:198, fully_parallel.py:272, filesystem_async.py:230.
    cuda.synchronize = _nothing
    # distributed_data_parallel.py:230, param_and_grad_buffer.py:417 and :529.
    cuda.Stream = cuda.Event = _NoStream
    cuda.current_stream = cuda.default_stream = _NoStream
    cuda.stream = lambda stream: contextlib.nullcontext()
    # optimizer.py:362.
    cuda.empty_cache = _nothing
    # utils.py:2186 and :2215.
    cuda.nvtx.range_push = cuda.nvtx.range_pop = _nothing
    # random.py:55, :235, :422: the random states of tensor-parallel regions. The setter in
    # megatron-core (:72) talks to the driver, so it is replaced whole.
    cuda.get_rng_state = cuda.random.get_rng_state = _get_rng_state
    cuda.set_rng_state = cuda.random.set_rng_state = _set_rng_state
    cuda.manual_seed = torch.manual_seed
    megatron_random._set_cuda_rng_state = _set_rng_state
    # clip_grads.py:11: with Transformer Engine or apex installed these are kernels for GPUs.
    clip_grads.multi_tensor_applier = megatron_utils.local_multi_tensor_applier
    clip_grads.multi_tensor_scale_impl = megatron_utils.local_multi_tensor_scale
    clip_grads.l2_norm_impl = _l2_norm
    # param_and_grad_buffer.py:285 and :443.
    buffers.dist_all_gather_func = _unless_alone(buffers.dist_all_gather_func)
    buffers.dist_reduce_scatter_func = _unless_alone(buffers.dist_reduce_scatter_func)
    # moe_utils.py:1192 takes Transformer Engine's GEMM when it is there, by a name that a failed
    # import (:34) leaves undefined.
    moe_utils.te_general_gemm = None
    mode = _CudaNamesMeanCpu()
    mode.__enter__()  # type: ignore[no-untyped-call]
    _installed.append(mode)
