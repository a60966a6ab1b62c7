import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.importing import import_hf
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import resolve_checkpoint
from megatron_msm.runtime import safe_metadata
from megatron_msm.runtime.safe_metadata import read_metadata, restricted_metadata_reading
from tests.unit.convert.hf_folders import write_hf_folder


class Runs:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def write_metadata(folder: Path, value: object) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(value))


def test_what_torch_writes_is_read_in_full(tmp_path: Path) -> None:
    state = {"a.weight": torch.ones(3, 2).bfloat16(), "b": torch.zeros(1), "object": {"x": (1,)}}
    save(state, checkpoint_id=tmp_path, no_dist=True)
    metadata = read_metadata(tmp_path)
    entry = metadata.state_dict_metadata["a.weight"]
    assert isinstance(entry, TensorStorageMetadata)
    assert (entry.properties.dtype, entry.size) == (torch.bfloat16, torch.Size((3, 2)))
    with (tmp_path / ".metadata").open("rb") as file:
        by_torch = pickle.load(file)
    assert metadata.state_dict_metadata == by_torch.state_dict_metadata
    assert metadata.storage_data == by_torch.storage_data


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Runs(os.system, "touch {path}"), r"posix\.system"),
        (Runs(eval, "open('{path}', 'w')"), r"builtins\.eval"),
        (Runs(torch.load, "{path}"), r"torch\.serialization\.load"),
        (Runs(torch.Size, (1,)), "holds Size, not checkpoint metadata"),
    ],
    ids=["system", "eval", "torch.load", "no metadata"],
)
def test_foreign_names_are_refused_before_they_run(
    tmp_path: Path, payload: Runs, name: str
) -> None:
    function, args = payload.call
    target = tmp_path / "touched"
    filled = [arg.format(path=target) if isinstance(arg, str) else arg for arg in args]
    write_metadata(tmp_path, Runs(function, *filled))
    with pytest.raises(CheckpointError, match=name) as caught:
        read_metadata(tmp_path)
    assert str(tmp_path / ".metadata") in str(caught.value)
    assert not target.exists()


def test_a_foreign_name_inside_real_metadata_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "megatron"
    write_hf_folder(tmp_path / "hf")
    import_hf(tmp_path / "hf", checkpoint)
    folder = resolve_checkpoint(checkpoint)
    metadata = read_metadata(folder)
    metadata.planner_data = Runs(os.system, f"touch {tmp_path / 'touched'}")
    write_metadata(folder, metadata)
    with pytest.raises(CheckpointError):
        export_hf(checkpoint, tmp_path / "back")
    with restricted_metadata_reading(), pytest.raises(CheckpointError, match=r"posix\.system"):
        FileSystemReader(folder).read_metadata()
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/__0_0.distcp"])
def test_paths_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    write_metadata(
        tmp_path, Metadata({}, storage_data={MetadataIndex("a"): _StorageInfo(name, 0, 9)})
    )
    with pytest.raises(CheckpointError, match="outside the checkpoint's folder"):
        read_metadata(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        b"not a pickle",
        b"\x80\x04K\x01.",
        b"cbuiltins\ngetattr\n(ctorch\nSize\nS'__class__'\ntR.",
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged|holds int"):
        read_metadata(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\.metadata: not found"):
        read_metadata(tmp_path)


def test_enum_members_pickled_by_early_python_3_11_are_read() -> None:
    from torch.distributed.checkpoint.planner import WriteItemType

    assert safe_metadata._enum_member(WriteItemType, "SHARD") is WriteItemType.SHARD
    with pytest.raises(pickle.UnpicklingError):
        safe_metadata._enum_member(os, "system")


def test_torch_loads_through_the_restricted_reader(tmp_path: Path) -> None:
    state: dict[str, Any] = {"a": torch.arange(4.0), "object": {"step": 3}}
    save(state, checkpoint_id=tmp_path, no_dist=True)
    found: dict[str, Any] = {"a": torch.zeros(4), "object": {"step": 0}}
    before = FileSystemReader.read_metadata
    with restricted_metadata_reading():
        load(found, checkpoint_id=tmp_path, no_dist=True)
    assert torch.equal(found["a"], state["a"])
    assert found["object"] == {"step": 3}
    assert FileSystemReader.read_metadata is before


def test_objects_that_run_code_are_not_loaded(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    save({"object": Runs(os.system, f"touch {target}")}, checkpoint_id=tmp_path, no_dist=True)
    with restricted_metadata_reading(), pytest.raises(BaseException, match="'object' holds more"):
        load({"object": None}, checkpoint_id=tmp_path, no_dist=True)
    assert not target.exists()
