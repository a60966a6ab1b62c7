"""A Hugging Face folder's weights into this rank's part of the model, without a checkpoint between.

Each tensor of the model's table that a rank has a part of is read whole, by the tables that
`msm convert import` uses, and the part is taken. So a rank reads the layers of its pipeline stage
and its own experts, and holds one tensor at a time beside its weights.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from megatron.core.dist_checkpointing.dict_utils import dict_list_map_inplace, nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factory_merges
from megatron.core.dist_checkpointing.state_dict_utils import load_preprocess
from megatron.core.models.gpt.gpt_model import GPTModel

from megatron_msm.convert.file_access import Scratch
from megatron_msm.convert.import_sources import HfSource, open_hf_source
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.layers.lora import is_adapter
from megatron_msm.models.tensor_table import MappedTensor
from megatron_msm.progress import SILENT, Progress
from megatron_msm.runtime.extra_state import is_extra_state
from megatron_msm.train.checkpoints.checkpoint import chunk_name, sharded_state


def load_hf(
    folder: Path, chunks: Sequence[GPTModel], *, keep: bool = False, progress: Progress = SILENT
) -> dict[str, dict[str, torch.Tensor]]:
    """Load a Hugging Face folder into this rank's model chunks; LoRA adapters stay as they are.

    Args:
        folder: With config.json and weights.
        chunks: This rank's model chunks, GPTModels.
        keep: Return the tensors as they were read, which takes as much memory as the chunks.
        progress: Told how many bytes of this rank's weights are read.

    Returns:
        What `load_checkpoint` returns; without `keep` the chunks' own tensors.

    Raises:
        CheckpointError: The folder is incomplete or damaged.
    """
    shape = read_model_shape(folder)
    mapped = table_for(shape).expand(shape)
    reader = _ShardReader(open_hf_source(folder, shape, mapped), mapped)
    wanted = sharded_state(chunks, None, is_loading=True)
    states: dict[str, dict[str, torch.Tensor]] = {}
    progress.start("loading weights", _num_bytes(chunks))
    for index, chunk in enumerate(chunks):
        name = chunk_name(index)
        state = {k: v for k, v in chunk.state_dict().items() if not is_extra_state(k)}
        states[name] = state
        assert state.keys() == wanted[name].keys(), state.keys() ^ wanted[name].keys()
        for key in [key for key in state if not is_adapter(key)]:
            # A factory stands for a weight of which a checkpoint has the parts, as [gate; up].
            shards, _, factories = load_preprocess({key: wanted[name].pop(key)})
            if not keep and reader.read_whole(list(nested_values(shards)), state[key]):
                progress.advance(state[key].nbytes)
                continue
            read = apply_factory_merges(dict_list_map_inplace(reader.read, shards), factories)[key]
            state[key].copy_(read)
            progress.advance(state[key].nbytes)
            if keep:
                state[key] = read
    return states


def _num_bytes(chunks: Sequence[GPTModel]) -> int:
    return sum(
        weight.nbytes
        for chunk in chunks
        for name, weight in chunk.state_dict().items()
        if not is_extra_state(name) and not is_adapter(name)
    )


class _ShardReader:
    def __init__(self, source: HfSource, mapped: Sequence[MappedTensor]) -> None:
        self._source, self._scratch = source, Scratch()
        self._tensors: Mapping[str, list[MappedTensor]] = defaultdict(list)
        for tensor in mapped:
            self._tensors[tensor.key].append(tensor)

    def read_whole(self, shards: Sequence[ShardedTensor], target: torch.Tensor) -> bool:
        """Read straight into the model what is one tensor of the table, as without parallelism.

        Args:
            shards: Parts of one tensor, in the order in which `target` holds them.
            target: The model's own tensor.

        Returns:
            False when the shards are less than that tensor, or it is cast; nothing is read then.
        """
        tensors = self._tensors[shards[0].key]
        if len(tensors) != 1 or not target.is_cpu or not target.is_contiguous():
            return False
        [tensor] = tensors
        begins = [tuple(shard.global_offset) for shard in shards]
        num_values = sum(math.prod(shard.local_shape) for shard in shards)
        if (
            num_values != math.prod(tensor.lengths)
            or begins != sorted(set(begins))
            or target.numel() != num_values
            or self._source.dtype_of(tensor) != target.dtype
        ):
            return False
        self._source.read_into(tensor, target.view(tensor.size))
        return True

    def read(self, shard: ShardedTensor) -> torch.Tensor:
        """Read what a shard is a part of; rows that pad the vocabulary are zero."""
        leading = (1,) * (len(shard.global_offset) - len(shard.local_shape))
        size = (*leading, *shard.local_shape)
        tensors = self._tensors[shard.key]
        contents = [(tuple(tensor.lengths), self._source.dtype_of(tensor)) for tensor in tensors]
        if contents == [(size, shard.dtype)]:  # all of it, as without tensor parallelism
            read = torch.empty(shard.local_shape, dtype=shard.dtype)
            self._source.read_into(tensors[0], read.view(tensors[0].size))
            return read
        read = torch.zeros(size, dtype=shard.dtype)
        for tensor in tensors:
            spans = [
                (max(begin, first), min(begin + length, first + size))
                for begin, length, first, size in zip(
                    shard.global_offset, read.shape, tensor.offsets, tensor.lengths, strict=True
                )
            ]
            if any(begin >= end for begin, end in spans):
                continue
            whole = self._scratch.tensor(tensor.lengths, self._source.dtype_of(tensor))
            self._source.read_into(tensor, whole.view(tensor.size))
            target = _window(spans, shard.global_offset)
            read[target] = whole[_window(spans, tensor.offsets)]
        return read.reshape(shard.local_shape)


def _window(spans: Sequence[tuple[int, int]], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(
        slice(begin - first, end - first) for (begin, end), first in zip(spans, origin, strict=True)
    )
