"""Tensors with and without gaps go to files and come back; what is written is what is hashed."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from megatron_msm.convert import file_access
from megatron_msm.convert.file_access import Scratch, read_into, write_from
from megatron_msm.convert.hashing_file import HashingFile

WHOLE = torch.arange(4 * 6 * 5).reshape(4, 6, 5).to(torch.int16)


@pytest.mark.parametrize("most_pieces", [1, 3, 1024])
@pytest.mark.parametrize(
    "view",
    [WHOLE, WHOLE[1:3], WHOLE[:, 2:5], WHOLE[:, :, 1:4], WHOLE[0, 0, 3:], WHOLE[:0]],
    ids=["whole", "rows", "middle", "columns", "vector", "empty"],
)
def test_elements_keep_their_order(
    view: torch.Tensor, most_pieces: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_access, "_MAX_PIECES", most_pieces)
    path = tmp_path / "file"
    path.write_bytes(b"head")
    fd = os.open(path, os.O_RDWR)
    write_from(fd, 4, view)
    assert path.read_bytes() == b"head" + view.contiguous().numpy().tobytes()
    # Into a view with gaps; what lies between stays.
    target = torch.zeros(*view.shape, 2, dtype=torch.int16)
    assert read_into(fd, 4, target[..., 0])
    assert torch.equal(target[..., 0], view)
    assert not target[..., 1].any()
    if view.numel():
        assert not read_into(fd, 6, target[..., 0]), "the file ends before"
    os.close(fd)


def test_scratch_is_one_memory() -> None:
    scratch = Scratch()
    large = scratch.tensor((8, 4), torch.bfloat16)
    small = scratch.tensor((3, 5), torch.bfloat16)
    assert small.data_ptr() == large.data_ptr()
    assert small.untyped_storage().nbytes() == 30


def test_parts_written_backwards_are_hashed_forwards(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    parts = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(3, 1 << 20)
    with HashingFile(tmp_path / "file") as file:
        for index in (2, 1, 0):
            file.write_tensor(parts[index], index << 20)
        file.finish(2 << 20)
        record = file.record()
    assert (tmp_path / "file").read_bytes() == content
    assert (record.bytes, record.sha256) == (3 << 20, hashlib.sha256(content).hexdigest())
