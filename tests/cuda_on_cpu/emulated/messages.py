"""NCCL's names with gloo's messages, where the two behave differently.

NCCL                                           gloo, and what is done here
reads a sent tensor in the order of the        its thread reads it later, when it may be freed or
stream: later changes do not matter            changed: it is given a copy
a finished message may be waited for again     waiting again hangs: the second wait is left out
a group of messages of any types               their bytes are joined, which mixes types: each
                                               is sent alone, when the group is waited for
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import distributed
from torch.distributed import distributed_c10d


def install() -> None:
    """Put gloo behind NCCL's names."""
    _replace("init_process_group", _make_groups_of_gloo(distributed.init_process_group))
    _replace("new_group", _make_groups_of_gloo(distributed.new_group))
    _replace("isend", _send_a_copy(distributed.isend))
    _replace("irecv", _wait_once(distributed.irecv))
    _replace("all_gather_into_tensor", _in_groups(distributed.all_gather_into_tensor))
    _replace("reduce_scatter_tensor", _in_groups(distributed.reduce_scatter_tensor))
    _replace("_coalescing_manager", _group)


def _replace(name: str, function: Any) -> None:
    for module in (distributed, distributed_c10d):
        setattr(module, name, function)


def _make_groups_of_gloo(make: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in ("device_id", "pg_options"):
            kwargs.pop(name, None)
        if args and args[0] == "nccl":
            args = ("gloo", *args[1:])
        if kwargs.get("backend") == "nccl":
            kwargs["backend"] = "gloo"
        return make(*args, **kwargs)

    return call


class _Message:
    """A message under way, with what must outlive it."""

    def __init__(self, work: Any, tensor: torch.Tensor) -> None:
        self._work, self._tensor, self._is_done = work, tensor, False

    def wait(self, timeout: Any = None) -> bool:
        if not self._is_done:
            self._work.wait()
            self._is_done = True
        return True

    def is_completed(self) -> bool:
        return self._is_done or bool(self._work.is_completed())


def _send_a_copy(send: Callable[..., Any]) -> Callable[..., Any]:
    def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        copy = tensor.detach().clone()
        return _Message(send(copy, *args, **kwargs), copy)

    return call


def _wait_once(receive: Callable[..., Any]) -> Callable[..., Any]:
    def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return _Message(receive(tensor, *args, **kwargs), tensor)

    return call


_open_groups: list["_Group"] = []


class _Group:
    """Collectives that are started together."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def wait(self) -> bool:
        calls, self.calls = self.calls, []
        for call in calls:
            call()
        return True

    def is_completed(self) -> bool:
        return not self.calls


@contextlib.contextmanager
def _group(group: Any = None, device: Any = None, async_ops: bool = False) -> Iterator[_Group]:
    started = _Group()
    _open_groups.append(started)
    try:
        yield started
    finally:
        _open_groups.pop()
    if not async_ops:
        started.wait()


def _in_groups(collective: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, async_op: bool = False, **kwargs: Any) -> Any:
        if not _open_groups:
            return collective(*args, async_op=async_op, **kwargs)
        _open_groups[-1].calls.append(lambda: collective(*args, **kwargs))
        return None

    return call
