"""Optimizer state in shards: the files hold what megatron-core's own gathering puts there."""

import contextlib
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.runtime import RuntimeConfig
from megatron_msm.convert.importing import import_hf
from megatron_msm.formats.checkpoint_folder import iteration_folder
from tests.distributed.layout_worker import OPTIMIZER, Rank, join, save
from tests.distributed.layout_worker import load as load_rank
from tests.distributed.ranks import run_on_ranks
from tests.tiny import write_tiny_model


def save_both_ways(folder: Path, layout: ParallelConfig, is_first: bool) -> None:
    """Make up a state and save it in shards and gathered; later load one, save it the other way."""
    from megatron_msm.runtime.optimizer_state import begin_state, state_shards
    from megatron_msm.train.checkpoints import checkpoint
    from megatron_msm.train.steps.step import build_optimizer, wrap_data_parallel

    # In float32 the main weights are the model's, which this state would not fit.
    runtime, ranks = join(layout, RuntimeConfig(device="cpu", dtype="bf16"))
    rank: Rank = load_rank(layout, iteration_folder(folder / "base", 0), runtime, ranks)
    wrapped = wrap_data_parallel(rank.chunks, runtime)
    optimizer = build_optimizer(wrapped, OPTIMIZER, runtime)
    begin_state(optimizer)
    torch.manual_seed(ranks.rank)

    def change() -> None:
        for shard in state_shards(optimizer):
            for tensor in shard.tensors.values():
                tensor.detach().normal_()

    def take(name: str) -> None:
        change()
        if not is_first:
            saved = iteration_folder(folder / name, 0)
            checkpoint.load_checkpoint(saved, rank.chunks, optimizer)

    take("shards")
    gathered = folder / ("gathered" if is_first else "gathered-again")
    with mock.patch.object(checkpoint, "in_shards", contextlib.nullcontext):
        save(rank, rank.chunks, gathered, optimizer)
    if not is_first:
        take("gathered")
    save(rank, rank.chunks, folder / ("shards" if is_first else "shards-again"), optimizer)


def state_in(root: Path) -> dict[str, torch.Tensor]:
    """Read the whole tensors of a checkpoint's optimizer state by torch alone."""
    reader = FileSystemReader(iteration_folder(root, 0))
    wanted = {
        key: torch.full(tuple(known.size), torch.nan)
        for key, known in reader.read_metadata().state_dict_metadata.items()
        if "optimizer.state." in key and isinstance(known, TensorStorageMetadata)
    }
    load(wanted, storage_reader=reader, no_dist=True)
    return wanted


@pytest.mark.parametrize(
    ("family", "layouts"),
    [
        ("llama", (ParallelConfig(tensor=2, data=2), ParallelConfig(pipeline=2))),
        ("qwen3_moe", (ParallelConfig(data=4, expert=2), ParallelConfig(data=2, expert=2))),
    ],
    ids=["dense", "experts"],
)
def test_files_hold_what_gathering_puts_there_and_load_under_another_layout(
    tmp_path: Path, family: str, layouts: tuple[ParallelConfig, ParallelConfig]
) -> None:
    import_hf(write_tiny_model(tmp_path / "hf", family, dtype="bfloat16"), tmp_path / "base")
    first, second = layouts
    run_on_ranks(save_both_ways, first.world_size, tmp_path, first, True)
    expected = state_in(tmp_path / "gathered")
    kinds = {key.partition("optimizer.state.")[2].partition(".")[0] for key in expected}
    assert kinds == {"param", "exp_avg", "exp_avg_sq"}
    assert not any(torch.isnan(tensor).any() for tensor in expected.values())
    assert_same(state_in(tmp_path / "shards"), expected)
    files = {path.name for path in iteration_folder(tmp_path / "shards", 0).glob("*.distcp")}
    assert files == {f"__{rank}_0.distcp" for rank in range(first.world_size)}
    run_on_ranks(save_both_ways, second.world_size, tmp_path, second, False)
    assert_same(state_in(tmp_path / "gathered-again"), expected)
    assert_same(state_in(tmp_path / "shards-again"), expected)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare bit for bit, but for the rows that pad a vocabulary for other tensor ranks."""
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        rows = min(len(tensor), len(found[key]))
        assert torch.equal(found[key][:rows], tensor[:rows]), key
