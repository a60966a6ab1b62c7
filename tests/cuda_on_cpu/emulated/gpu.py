"""torch.cuda as it answers on a machine with GPUs, with tensors that live on the CPU.

`device="cuda"` lands on the CPU and tensors say that they are on CUDA, but those that `Tensor.cpu`
made. Work is done when a call returns, so streams and events have nothing to order.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

NUM_GPUS = 4
_CPU = torch.device("cpu")
_TYPE_NAMES = {
    f"torch.{kind}Tensor": f"torch.cuda.{kind}Tensor" for kind in ("Float", "BFloat16", "Half")
}


@dataclass(frozen=True)
class EmulatedGpu:
    """What torch says of a GPU."""

    name: str
    capability: tuple[int, int]
    memory_gib: int


GPUS = {
    "H100": EmulatedGpu("NVIDIA H100 80GB HBM3 (emulated)", (9, 0), 80),
    "B200": EmulatedGpu("NVIDIA B200 (emulated)", (10, 0), 180),
}

_Tensor: Any = torch.Tensor
_is_cuda, _data = _Tensor.is_cuda.__get__, _Tensor.data.__get__
_STAYS_ON_THE_HOST = {
    torch.Tensor.detach,
    torch.Tensor.clone,
    torch.Tensor.float,
    torch.Tensor.pin_memory,
    _data,
}


class _CudaIsCpu(TorchFunctionMode):
    """Maps the device cuda to the CPU in every call of torch, and answers where a tensor is."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func == _is_cuda:
            return not _is_on_host(args[0])
        if func is torch.Tensor.cpu:  # from a GPU it is a copy
            return _put_on_host(func(*args, **(kwargs or {})).clone())
        if func in (torch.Tensor.cuda, torch.Tensor.pin_memory):
            return args[0]
        if func is torch.device and isinstance(args[0], int):
            return torch.device("cuda", args[0])
        if func is torch.Tensor.to and len(args) > 1 and _is_cuda_name(args[1]):
            args = (args[0], _CPU, *args[2:])
        result = func(*args, **_on_cpu(kwargs or {}))
        if func in _STAYS_ON_THE_HOST and _is_on_host(args[0]):
            return _put_on_host(result)
        if func is torch.Tensor.type and isinstance(result, str):
            return _TYPE_NAMES.get(result, result)
        return result


def _on_cpu(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(kwargs)
    if _is_cuda_name(changed.get("device")):
        changed["device"] = _CPU
    if changed.get("pin_memory"):
        changed["pin_memory"] = False
    return changed


def _is_cuda_name(device: Any) -> bool:
    if isinstance(device, int) and not isinstance(device, bool):
        return True
    return isinstance(device, str | torch.device) and str(device).startswith("cuda")


def _is_on_host(tensor: Any) -> bool:
    return getattr(tensor, "_is_on_host", False)


def _put_on_host(tensor: Any) -> Any:
    tensor._is_on_host = True
    return tensor


class Stream:
    """A CUDA stream whose work is done when it is queued."""

    cuda_stream = 0
    device = _CPU

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, event: Any = None) -> Any:
        return event or Event()

    def query(self) -> bool:
        return True

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exc_info: object) -> None: ...


class Event:
    """A CUDA event; it knows the time of its record if it was made to."""

    def __init__(self, enable_timing: bool = False, **kwargs: Any) -> None:
        self._has_timing = enable_timing
        self._recorded_s: float | None = None

    def record(self, stream: Any = None) -> None:
        self._recorded_s = time.perf_counter()

    def synchronize(self) -> None: ...

    def wait(self, stream: Any = None) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: "Event") -> float:
        """Return milliseconds; only between two events that time and were recorded."""
        assert self._has_timing, "the first event was made without enable_timing"
        assert end._has_timing, "the second event was made without enable_timing"
        assert self._recorded_s is not None, "the first event was not recorded"
        assert end._recorded_s is not None, "the second event was not recorded"
        return 1000 * (end._recorded_s - self._recorded_s)


def _nothing(*args: Any, **kwargs: Any) -> None: ...


def _no_context(*args: Any, **kwargs: Any) -> Any:
    return contextlib.nullcontext()


def install(gpu: EmulatedGpu) -> None:
    """Let torch see `NUM_GPUS` of a GPU."""
    if torch.version.cuda is None:  # a torch without CUDA
        torch.version.cuda = "13.0"
    _answer_for(gpu)
    _keep_order()
    _share_random_state()
    _enter_mode()


def _answer_for(gpu: EmulatedGpu) -> None:
    cuda: Any = torch.cuda
    current = [0]

    def set_device(device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        assert index is not None, f"{device}: has no number"
        assert 0 <= index < NUM_GPUS, f"{device}: there are {NUM_GPUS} GPUs"
        current[0] = index

    def properties(device: Any = None) -> Any:
        index = device if isinstance(device, int) else getattr(device, "index", None)
        return SimpleNamespace(
            name=gpu.name,
            major=gpu.capability[0],
            minor=gpu.capability[1],
            total_memory=gpu.memory_gib * 2**30,
            multi_processor_count=132,
            uuid=f"emulated-{current[0] if index is None else index}",
        )

    cuda.is_available = cuda.is_initialized = cuda.is_bf16_supported = lambda *_, **__: True
    cuda.device_count = lambda: NUM_GPUS
    cuda.set_device, cuda.current_device = set_device, lambda: current[0]
    cuda.get_device_properties = properties
    cuda.get_device_name = lambda device=None: gpu.name
    cuda.get_device_capability = lambda device=None: gpu.capability
    cuda.memory_stats = lambda device=None: {}
    cuda.mem_get_info = lambda device=None: (gpu.memory_gib * 2**30, gpu.memory_gib * 2**30)
    for name in ("memory_allocated", "memory_reserved"):
        setattr(cuda, name, lambda device=None: 0)
        setattr(cuda, f"max_{name}", lambda device=None: 0)
    for name in ("init", "_lazy_init", "empty_cache", "ipc_collect", "reset_peak_memory_stats"):
        setattr(cuda, name, _nothing)


def _keep_order() -> None:
    """Replace what orders work on a GPU, or names it for a profiler."""
    cuda: Any = torch.cuda
    cuda.synchronize = cuda.set_stream = _nothing
    cuda.Stream = cuda.ExternalStream = Stream
    cuda.Event = Event
    cuda.current_stream = cuda.default_stream = lambda device=None: Stream()
    cuda.stream = cuda.device = _no_context
    cuda.is_current_stream_capturing = lambda: False
    cuda.nvtx.range_push = cuda.nvtx.range_pop = cuda.nvtx.mark = _nothing
    cuda.nvtx.range = _no_context
    torch.Tensor.record_stream = _nothing  # type: ignore[method-assign]


def _share_random_state() -> None:
    """Take the CPU's random state for the GPUs'."""
    cuda: Any = torch.cuda

    def set_state(state: torch.Tensor, device: Any = None, **kwargs: Any) -> None:
        torch.random.set_rng_state(state)

    cuda.get_rng_state = cuda.random.get_rng_state = lambda device=None: (
        torch.random.get_rng_state()
    )
    cuda.set_rng_state = cuda.random.set_rng_state = set_state
    cuda.manual_seed = cuda.manual_seed_all = torch.default_generator.manual_seed
    cuda.default_generators = cuda.random.default_generators = tuple(
        torch.default_generator for _ in range(NUM_GPUS)
    )


_modes: list[_CudaIsCpu] = []


def _enter_mode() -> None:
    """Map devices from here on; also in the backward pass, which torch runs outside of modes."""
    run: Any = torch.autograd.graph._engine_run_backward

    def run_mapped(*args: Any, **kwargs: Any) -> Any:
        with _CudaIsCpu():
            return run(*args, **kwargs)

    autograd: Any = torch.autograd
    autograd._engine_run_backward = autograd.graph._engine_run_backward = run_mapped
    mode = _CudaIsCpu()
    mode.__enter__()  # type: ignore[no-untyped-call]
    _modes.append(mode)
