"""Messages between emulated GPUs behave as NCCL's where gloo's would not."""

import time
from typing import Any

import torch
from torch import distributed

from tests.distributed.ranks import run_on_ranks


def send_and_change() -> None:
    distributed.init_process_group("nccl")
    assert distributed.get_backend() == "gloo"
    tensor = torch.ones(1 << 20)
    if distributed.get_rank() == 0:
        message = distributed.isend(tensor, dst=1)
        tensor.fill_(torch.nan)
        assert message is not None
        message.wait()
        message.wait()
    else:
        time.sleep(0.5)
        message = distributed.irecv(tensor.zero_(), src=0)
        assert message is not None
        message.wait()
        assert torch.equal(tensor, torch.ones(1 << 20))
    distributed.destroy_process_group()


def test_what_is_changed_after_it_was_sent_arrives_as_it_was() -> None:
    run_on_ranks(send_and_change, 2)


def gather_bytes_beside_numbers() -> None:
    distributed.init_process_group("nccl")
    rank = distributed.get_rank()
    outs = [torch.empty(2, dtype=kind) for kind in (torch.uint8, torch.bfloat16)]
    together: Any = getattr(distributed, "_coalescing_manager")  # noqa: B009  # torch keeps it private
    with together(async_ops=True) as group:
        for out in outs:
            distributed.all_gather_into_tensor(out, torch.full((1,), 3 + rank, dtype=out.dtype))
    group.wait()
    assert [out.tolist() for out in outs] == [[3, 4], [3.0, 4.0]]
    distributed.destroy_process_group()


def test_messages_of_two_types_in_a_group() -> None:
    run_on_ranks(gather_bytes_beside_numbers, 2)
