"""Where an import takes its tensors from."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from megatron_msm.convert.adapters.peft import PeftAdapter
from megatron_msm.convert.huggingface.weights import HfWeights, open_hf_weights
from megatron_msm.convert.matching import check_hf_weights
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import AdapterRecord, CheckpointState, LineageEntry
from megatron_msm.formats.files import sha256_of_file, sha256_of_json
from megatron_msm.formats.json_types import JsonRow
from megatron_msm.formats.tokenizer_files import TokenizerFiles
from megatron_msm.formats.vocabulary import check_tokenizer_fits
from megatron_msm.models.architecture import HfConfig
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import MappedTensor
from megatron_msm.runtime.versions import installed_versions

logger = logging.getLogger(__name__)

HUB_REVISION = "hub_revision"
"""Detail of a lineage entry whose `source` is a name on a hub."""
TensorList = Mapping[str, JsonRow]
"""Content of hf/tensors.json: names, dtypes and sizes in the order in which export writes them."""


class ImportSource(Protocol):
    """A model whose tensors can be read one by one; can be pickled."""

    @property
    def adapter(self) -> AdapterRecord | None:
        """The LoRA adapters that come with it."""
        ...

    @property
    def adapter_tensors(self) -> Sequence[MappedTensor]:
        """Their matrices."""
        ...

    def dtype_of(self, tensor: MappedTensor) -> torch.dtype:
        """Return a dtype that holds the tensor exactly."""
        ...

    def read_into(self, tensor: MappedTensor, target: torch.Tensor) -> None:
        """Read one tensor as Megatron has it into one of its size, of any dtype."""
        ...

    def tensor_list(self) -> TensorList:
        """Return what an export has to restore."""
        ...

    def lineage_entry(self) -> LineageEntry:
        """Describe the source; reads and hashes its files."""
        ...


@dataclass(frozen=True)
class HfSource:
    """A Hugging Face folder."""

    folder: Path
    weights: HfWeights
    left_out: Sequence[str]
    """Tensors of the files that are not weights."""
    peft: PeftAdapter | None = None
    """An adapter of the model."""

    @property
    def adapter(self) -> AdapterRecord | None:
        """The adapter's settings."""
        return None if self.peft is None else self.peft.record

    @property
    def adapter_tensors(self) -> Sequence[MappedTensor]:
        """The adapter's matrices."""
        return () if self.peft is None else self.peft.tensors

    def _weights_of(self, name: str) -> HfWeights:
        if self.peft is not None and name in self.peft.weights.tensors:
            return self.peft.weights
        return self.weights

    def dtype_of(self, tensor: MappedTensor) -> torch.dtype:
        """Return the dtype that the parts are promoted to."""
        first, *others = (self._weights_of(name).tensors[name].dtype for name in tensor.hf_names)
        for other in others:
            first = torch.promote_types(first, other)
        return first

    def read_into(self, tensor: MappedTensor, target: torch.Tensor) -> None:
        """Read the parts into its views."""
        for name, view in zip(tensor.hf_names, tensor.views(target), strict=True):
            self._weights_of(name).read_into(name, view)

    def tensor_list(self) -> TensorList:
        """Return the tensors in the order of the files."""
        return list_of_weights(self.weights, left_out=self.left_out)

    def lineage_entry(self) -> LineageEntry:
        """Name the folder and hash its weights and config."""
        hashes = {file.name: sha256_of_file(file) for file in self.weights.files}
        config = sha256_of_file(self.folder / "config.json")
        adapter = {} if self.peft is None else {"adapter_sha256": self.peft.sha256}
        return LineageEntry(
            stage="import",
            identity=sha256_of_json([hashes, config, *adapter.values()]),
            details={
                **_whereabouts(self.folder.resolve()),
                "weights_sha256": {**hashes},
                "config_sha256": config,
                "left_out_buffers": [*self.left_out],
                **adapter,
            },
        )


def _whereabouts(folder: Path) -> Mapping[str, str]:
    """Name a folder: as the hub does where it is in its cache, else without its path.

    Source: huggingface_hub, constants and `repo_folder_name`: models--OWNER--NAME/snapshots/COMMIT.
    """
    is_cached = folder.parent.name == "snapshots"
    kind, *name = folder.parent.parent.name.split("--")
    if is_cached and kind == "models" and name:
        return {"source": "/".join(name), HUB_REVISION: folder.name}
    return {"source": folder.name}


def open_hf_source(folder: Path, shape: ModelShape, mapped: Sequence[MappedTensor]) -> HfSource:
    """Open a Hugging Face folder and check that its weights are those of its config.json.

    Raises:
        CheckpointError: They are not, or the folder is incomplete or damaged.
    """
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder / 'adapter_config.json'}: with it transformers takes the folder for an "
            "adapter, and loads the base that it names instead of these weights. Remove it, or "
            "give an adapter with --adapter."
        )
    weights = open_hf_weights(folder)
    left_out = check_hf_weights(folder, weights, shape, mapped)
    if left_out:
        logger.warning("%s: left out %d buffers computed from the config", folder, len(left_out))
    return HfSource(folder, weights, left_out)


def imported_state(
    config: HfConfig,
    tokenizer: TokenizerFiles,
    entry: LineageEntry,
    *,
    remarks: Sequence[str] = (),
) -> CheckpointState:
    """Return the state of a model before any training.

    Args:
        config: The folder's.
        tokenizer: The folder's.
        entry: Where the weights come from.
        remarks: What is read in more than one way, recorded beside what config.json says.

    Raises:
        CheckpointError: The tokenizer has more tokens than the model has rows.
    """
    shape = config.shape
    check_tokenizer_fits(tokenizer, shape.vocab_size)
    remarks = [*config.remarks, *remarks]
    for remark in remarks:
        logger.warning("%s", remark)
    if remarks:
        entry = entry.model_copy(update={"details": {**entry.details, "remarks": remarks}})
    return CheckpointState(
        iteration=0,
        phase="import",
        phase_complete=True,
        architecture=shape.model_type,
        model_sha256=shape.sha256,
        tokenizer_sha256=tokenizer.tokenizer_sha256,
        chat_template_sha256=tokenizer.chat_template_sha256,
        lineage=(entry,),
        versions=installed_versions(),
    )


def list_of_weights(weights: HfWeights, *, left_out: Sequence[str] = ()) -> TensorList:
    """Return names, dtypes and sizes in the order of the files."""
    return {
        name: {"dtype": str(info.dtype).removeprefix("torch."), "shape": list(info.size)}
        for name, info in weights.tensors.items()
        if name not in left_out
    }
