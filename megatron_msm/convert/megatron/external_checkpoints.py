"""Checkpoints of Megatron-LM, Megatron-Bridge and NeMo 2: torch_dist under other names.

All three save megatron-core's GPTModel, so the tensors are those of our table. What differs:

    folder   ROOT/iter_0000100/ (Megatron-LM, Megatron-Bridge with run_config.yaml),
             ROOT/release/ (Megatron-LM's converted ones, when the tracker says so),
             ROOT/weights/ (NeMo 2, beside context/)
    prefix   none, or `module.` (NeMo 2)
    layers   one key a layer, or one key for all with the layer as first dimension (megatron-core's
             default: transformer_block.py, `non_homogeneous_layers`)

Source: megatron-core 0.16.1; Megatron-Bridge 0.3.1, training/utils/checkpoint_utils.py; the prefix
of NeMo 2 from its published key lists. In tests megatron-core itself writes both layouts of layers,
and Megatron-Bridge its folders (tests/integration/test_megatron_bridge.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch

from megatron_msm.convert.huggingface.weights import open_hf_weights
from megatron_msm.convert.import_sources import TensorList, list_of_weights
from megatron_msm.convert.matching import is_optimizer_key, listed
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import (
    LATEST_FILE,
    STATE_FILE,
    LineageEntry,
    iteration_folder,
    latest_iteration,
)
from megatron_msm.formats.files import sha256_of_file, sha256_of_json
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.models.tensor_table import MappedTensor, Size, hf_tensors
from megatron_msm.runtime.safe_metadata import METADATA_FILE

RELEASE = "release"
_PREFIXES = ("", "module.", "model.", "model.module.")
_LAYER = re.compile(r"(decoder\.layers\.)(\d+)\.")


@dataclass(frozen=True)
class _Region:
    """A region of a checkpoint's tensor."""

    key: str
    global_size: Size
    offsets: Size
    lengths: Size


def find_torch_dist(path: Path) -> Path:
    """Return the folder of a checkpoint's newest torch_dist files.

    Raises:
        CheckpointError: There is none, or it is one of ours.
    """
    candidates = [path, path / "weights"]
    candidates += _named_by_latest(path)
    candidates += sorted(path.glob("iter_*"), reverse=True)
    found = next((folder for folder in candidates if (folder / METADATA_FILE).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{path}: no torch_dist checkpoint here ({METADATA_FILE} in it, in weights/ or in "
            "iter_*/). Give the checkpoint folder of Megatron-LM, Megatron-Bridge or NeMo 2."
        )
    if (found / STATE_FILE).exists():
        raise CheckpointError(
            f"{found}: was written by this program and needs no import. Train from it or export it."
        )
    return found


def _named_by_latest(path: Path) -> list[Path]:
    """Return what the root's tracker names: an iteration, or Megatron-LM's `release`."""
    tracker = path / LATEST_FILE
    if tracker.is_file() and tracker.read_text().strip() == RELEASE:
        return [path / RELEASE]
    iteration = latest_iteration(path) if path.is_dir() else None
    return [] if iteration is None else [iteration_folder(path, iteration)]


class ExternalSource:
    """An external checkpoint as the source of an import."""

    def __init__(self, folder: Path, hf_folder: Path, mapped: Sequence[MappedTensor]) -> None:
        """Find every tensor.

        Args:
            folder: With the torch_dist files.
            hf_folder: config.json of the same model; its weights, if there are some, say in which
                dtypes and order an export writes.
            mapped: The tensors of the model.

        Raises:
            CheckpointError: Tensors are missing, unknown or of another size; all are listed.
        """
        self._folder, self._hf_folder, self._mapped = folder, hf_folder, mapped
        self._checkpoint = MegatronCheckpoint(folder)
        self._regions = _find_all(self._checkpoint, mapped, hf_folder)

    adapter: None = None
    adapter_tensors: Sequence[MappedTensor] = ()

    def dtype_of(self, tensor: MappedTensor) -> torch.dtype:
        """Return the dtype that the checkpoint has it in."""
        return self._checkpoint.tensors[self._regions[_identity(tensor)].key].dtype

    def read_into(self, tensor: MappedTensor, target: torch.Tensor) -> None:
        """Read one tensor."""
        region = self._regions[_identity(tensor)]
        view = target.view(region.lengths)
        self._checkpoint.read_region(region.key, region.offsets, view)

    def tensor_list(self) -> TensorList:
        """Return the tensors as the Hugging Face folder has them, else in config.json's dtype."""
        names = dict(hf_tensors(self._mapped))
        if any(self._hf_folder.glob("*.safetensors*")):
            weights = list_of_weights(open_hf_weights(self._hf_folder))
            return {name: entry for name, entry in weights.items() if name in names}
        config: JsonObject = orjson.loads((self._hf_folder / "config.json").read_bytes())
        wanted = config.get("dtype") or config.get("torch_dtype")
        dtypes = {
            name: wanted or str(self.dtype_of(tensor)).removeprefix("torch.")
            for tensor in self._mapped
            for name in tensor.hf_names
        }
        return {name: {"dtype": dtypes[name], "shape": list(names[name])} for name in sorted(names)}

    def lineage_entry(self) -> LineageEntry:
        """Name the checkpoint; its content is in the identity of what is written."""
        metadata = sha256_of_file(self._folder / METADATA_FILE)
        config = sha256_of_file(self._hf_folder / "config.json")
        return LineageEntry(
            stage="import",
            identity=sha256_of_json([metadata, config]),
            details={
                "source": f"{self._folder.resolve().parent.name}/{self._folder.name}",
                "metadata_sha256": metadata,
                "config_sha256": config,
            },
        )


def _identity(tensor: MappedTensor) -> tuple[str, int | None]:
    return tensor.key, tensor.expert


def _find_all(
    checkpoint: MegatronCheckpoint, mapped: Sequence[MappedTensor], hf_folder: Path
) -> Mapping[tuple[str, int | None], _Region]:
    regions: dict[tuple[str, int | None], _Region] = {}
    missing = []
    for tensor in mapped:
        candidates = [
            region
            for prefix in _PREFIXES
            for region in (_own_key(tensor, prefix), _stacked_key(tensor, prefix))
            if region.key in checkpoint.tensors
        ]
        if candidates:
            regions[_identity(tensor)] = candidates[0]
        else:
            missing.append(tensor.key)
    used = {region.key for region in regions.values()}
    unknown = [key for key in checkpoint.tensors if key not in used and not is_optimizer_key(key)]
    if missing or unknown:
        raise CheckpointError(
            f"{checkpoint.folder}: is not a checkpoint of the model in {hf_folder / 'config.json'}."
            + listed("Missing", sorted(set(missing)))
            + listed("Not in the mapping", unknown)
            + " Give the Hugging Face folder of the model that was trained."
        )
    for tensor in mapped:
        _check_size(checkpoint, tensor, regions[_identity(tensor)])
    return regions


def _check_size(checkpoint: MegatronCheckpoint, tensor: MappedTensor, region: _Region) -> None:
    found, wanted = checkpoint.tensors[region.key].size, region.global_size
    is_padded = tensor.may_be_padded and found[:1] > wanted[:1] and found[1:] == wanted[1:]
    if found != wanted and not is_padded:
        raise CheckpointError(
            f"{checkpoint.folder}: tensor {region.key!r} has size {found}, config.json asks for "
            f"{wanted}. Give the Hugging Face folder of the model that was trained."
        )


def _own_key(tensor: MappedTensor, prefix: str) -> _Region:
    return _Region(prefix + tensor.key, tensor.global_size, tensor.offsets, tensor.lengths)


def _stacked_key(tensor: MappedTensor, prefix: str) -> _Region:
    """Return the region among all layers; the same as its own for a tensor that is in no layer."""
    match = _LAYER.match(tensor.key)
    if match is None:
        return _own_key(tensor, prefix)
    key = prefix + match[1] + tensor.key[match.end() :]
    return _Region(
        key,
        (tensor.shape.num_layers, *tensor.global_size),
        (int(match[2]), *tensor.offsets),
        (1, *tensor.lengths),
    )
