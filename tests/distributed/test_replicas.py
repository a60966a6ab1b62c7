"""Copies of weights on several ranks are compared after a load."""

from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import resolve_checkpoint
from tests.distributed.layout_worker import join, load
from tests.distributed.ranks import Device, run_on_ranks
from tests.tiny import write_tiny_llama


def load_and_break(layout: ParallelConfig, checkpoint: Path, name: str) -> None:
    """Load on all ranks, check, change one number on rank 1, and check again."""
    from megatron_msm.train.checkpoints.replicas import check_replicas

    runtime, ranks = join(layout)
    rank = load(layout, checkpoint, runtime, ranks)
    check_replicas(rank.chunks, ranks)
    if ranks.rank == 1:
        parameters = dict(rank.chunks[0].named_parameters())
        with torch.no_grad():
            parameters[name].view(-1)[7] += 1.0
    check_replicas(rank.chunks, ranks)


@pytest.mark.parametrize(
    ("layout", "name", "said"),
    [
        (ParallelConfig(data=2), "decoder.layers.3.mlp.linear_fc2.weight", "linear_fc2"),
        (ParallelConfig(pipeline=2), "output_layer.weight", "embedding and output layer"),
        (ParallelConfig(tensor=3), "decoder.final_layernorm.weight", "final_layernorm"),
    ],
    ids=["data", "tied embedding", "tensor"],
)
def test_one_different_number_is_found(
    tmp_path: Path, device: Device, layout: ParallelConfig, name: str, said: str
) -> None:
    import_hf(write_tiny_llama(tmp_path / "hf"), tmp_path / "base")
    checkpoint = resolve_checkpoint(tmp_path / "base")
    with pytest.raises(ProcessRaisedException, match=f"1 weights differ between ranks.*{said}"):
        run_on_ranks(load_and_break, layout.world_size, layout, checkpoint, name, device=device)
