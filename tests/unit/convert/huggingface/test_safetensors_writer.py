import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from megatron_msm.convert.huggingface.safetensors_writer import (
    SafetensorsFile,
    TensorLayout,
    parse_size,
    split_into_shards,
)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("5GB", 5 * 10**9), ("500 MB", 5 * 10**8), ("2GiB", 2**31), ("1.5kb", 1500)],
)
def test_sizes(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(1, 60))
def test_shards_keep_order_and_limit(lengths: list[int], limit: int) -> None:
    tensors = [TensorLayout(str(i), torch.bfloat16, (n,)) for i, n in enumerate(lengths)]
    shards = split_into_shards(tensors, limit)
    assert [tensor for shard in shards for tensor in shard] == tensors
    for shard in shards:
        assert len(shard) == 1 or sum(tensor.num_bytes for tensor in shard) <= limit
    for one, following in itertools.pairwise(shards):
        assert sum(tensor.num_bytes for tensor in [*one, following[0]]) > limit


def test_tensors_arrive_in_any_order(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4).bfloat16(),
        "ä\n": torch.randn(5),
        "empty": torch.empty(0, 4),
        "view": torch.randn(4, 6)[:, ::2],
    }
    layouts = [TensorLayout(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()]
    with SafetensorsFile(tmp_path / "model.safetensors", layouts) as file:
        for name in reversed(tensors):
            file.write(name, tensors[name])
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_tensor_left_out_is_noticed(tmp_path: Path) -> None:
    layout = TensorLayout("a", torch.float32, (2,))
    with (
        pytest.raises(AssertionError, match="not written"),
        SafetensorsFile(tmp_path / "model.safetensors", [layout]),
    ):
        pass
