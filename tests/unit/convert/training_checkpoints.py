"""Checkpoints as a training run leaves them: padded, sharded, with optimizer state beside."""

import io
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.formats.checkpoint_folder import (
    HF_FOLDER,
    RUN_FILE,
    LineageEntry,
    checkpoint_written_aside,
    publish_checkpoint,
    read_checkpoint_state,
    resolve_checkpoint,
)


def read_all(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint."""
    opened = MegatronCheckpoint(resolve_checkpoint(checkpoint))
    return {key: opened.read(key) for key in opened.tensors}


def write_trained(
    imported: Path,
    out: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    num_shards: int = 1,
    lineage: LineageEntry | None = None,
    run_yaml: str | None = None,
) -> None:
    """Write `tensors` as step 7 of a phase of the imported model.

    Each tensor is cut along its rows into `num_shards` chunks that lie in as many files.
    """
    folder = resolve_checkpoint(imported)
    state = read_checkpoint_state(folder)
    changes: dict[str, Any] = {"phase": "midtrain", "iteration": 7, "files": {}}
    if lineage is not None:
        changes["lineage"] = (*state.lineage, lineage)
    trained = state.model_copy(update=changes)
    with checkpoint_written_aside(out, 7) as tmp:
        shutil.copytree(folder / HF_FOLDER, tmp / HF_FOLDER)
        write_shards(tmp, tensors, num_shards)
        if run_yaml is not None:
            (tmp / RUN_FILE).write_text(run_yaml)
        publish_checkpoint(tmp, out, trained)


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor], num_shards: int) -> None:
    """Write torch_dist files, each tensor cut along its rows."""
    contents = [bytearray() for _ in range(num_shards)]
    described: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {
        "decoder.layers.0.mlp.linear_fc1._extra_state/shard_0_1": BytesStorageMetadata()
    }
    storage_data = {}
    for key, tensor in tensors.items():
        chunks = []
        row = 0
        for number, part in enumerate(torch.tensor_split(tensor, num_shards)):
            offsets = torch.Size([row] + [0] * (tensor.dim() - 1))
            saved = io.BytesIO()
            torch.save(part.clone(), saved)
            storage = _StorageInfo(
                f"__{number}_0.distcp", len(contents[number]), len(saved.getvalue())
            )
            storage_data[MetadataIndex(key, offsets)] = storage
            contents[number] += saved.getvalue()
            chunks.append(ChunkStorageMetadata(offsets, part.shape))
            row += len(part)
        properties = TensorProperties(dtype=tensor.dtype)
        described[key] = TensorStorageMetadata(properties, tensor.shape, chunks)
    for number, content in enumerate(contents):
        (folder / f"__{number}_0.distcp").write_bytes(content)
    (folder / ".metadata").write_bytes(pickle.dumps(Metadata(described, storage_data=storage_data)))
