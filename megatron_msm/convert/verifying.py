"""Proof that a checkpoint is the model of a Hugging Face folder: by tensors, and by logits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_msm.convert.adapters.merging import open_checkpoint
from megatron_msm.convert.comparing import (
    TensorDifference,
    difference,
    not_finite_parts,
    same_bits,
)
from megatron_msm.convert.file_access import Scratch
from megatron_msm.convert.forward import comparison, transformers_side
from megatron_msm.convert.forward.comparison import LogitDifference, MegatronProcess
from megatron_msm.convert.huggingface.weights import HfWeights, open_hf_weights, read_tensor
from megatron_msm.convert.matching import check_hf_weights, check_megatron_tensors
from megatron_msm.convert.megatron.reader import MegatronCheckpoint
from megatron_msm.convert.tokenizer_readings import difference_of_tokenizers
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import read_checkpoint_state, resolve_checkpoint
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import MappedTensor
from megatron_msm.progress import SILENT, Progress


@dataclass(frozen=True)
class ForwardReport:
    """Megatron's layers, with the checkpoint, beside transformers, with the folder."""

    read_otherwise: tuple[str, ...]
    """Fields of config.json that the installed transformers reads otherwise."""
    tokenizer: str | None
    """What the tokenizer's two readings differ in; says nothing about the checkpoint."""
    whole_model: LogitDifference
    """All layers, on short prompts."""
    long_document: LogitDifference
    """First and last layer, on a document as long as anything in the config changes."""

    @property
    def is_same(self) -> bool:
        """True when nothing differs but by rounding."""
        return not self.read_otherwise and self.whole_model.is_same and self.long_document.is_same


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, and what differs."""

    num_tensors: int
    differences: tuple[TensorDifference, ...]
    """Largest first. Tensors that differ in dtype only have a difference of zero."""
    not_finite: tuple[str, ...]
    """Tensors of the checkpoint, by their names in the folder, with NaN or infinity."""
    forward: ForwardReport | None
    """None when it was not asked for."""

    @property
    def is_same_model(self) -> bool:
        """True when every value is equal, and so is what is computed if that was asked for."""
        values_equal = all(found.max_abs == 0.0 for found in self.differences)
        is_computed_alike = self.forward is None or self.forward.is_same
        return values_equal and is_computed_alike and not self.not_finite


@dataclass(frozen=True)
class CheckpointReader:
    """A checkpoint as what the forward reads from."""

    checkpoint: MegatronCheckpoint

    def dtype_of(self, tensor: MappedTensor) -> torch.dtype:
        """Return the dtype that the checkpoint has it in."""
        return self.checkpoint.tensors[tensor.key].dtype

    def read_into(self, tensor: MappedTensor, target: torch.Tensor) -> None:
        """Read one tensor, adapters merged."""
        self.checkpoint.read_mapped(tensor, target)


def verify(
    hf_folder: Path, checkpoint: Path, *, logits: bool = True, progress: Progress = SILENT
) -> VerifyReport:
    """Compare a checkpoint with the Hugging Face folder that it should be equal to.

    Args:
        hf_folder: The folder that was imported, or one exported earlier.
        checkpoint: A checkpoint folder (its newest iteration is taken) or an iteration folder.
        logits: Also compare what Megatron computes with the checkpoint with what `transformers`
            computes with the folder.
        progress: Told how many bytes are done, and what it waits for.

    Raises:
        CheckpointError: A tensor is missing or unmapped on either side, or the two are not of the
            same architecture.
        MissingExtraError: Logits are asked for and transformers is not installed.
    """
    folder = resolve_checkpoint(checkpoint)
    state = read_checkpoint_state(folder)
    shape = read_model_shape(hf_folder)
    if shape.sha256 != state.model_sha256:
        raise CheckpointError(
            f"{folder}: is a checkpoint of another model (sha256 of the shape "
            f"{state.model_sha256[:12]}…) than {hf_folder} ({shape.sha256[:12]}…). "
            "Compare it with the folder that it was imported from."
        )
    mapped = table_for(shape).expand(shape)
    weights = open_hf_weights(hf_folder)
    check_hf_weights(hf_folder, weights, shape, mapped)
    megatron, adapters = open_checkpoint(folder, mapped, state.adapter)
    check_megatron_tensors(megatron, shape, mapped, adapters)
    compared = list(_compare_tensors(weights, megatron, mapped, progress))
    differences = [found for one in compared for found in one.differences]
    forward = None
    if logits:
        with progress.waiting("computing logits on both sides"):
            forward = _compare_forward(hf_folder, shape, megatron, weights)
    return VerifyReport(
        num_tensors=sum(len(tensor.hf_names) for tensor in mapped),
        differences=tuple(sorted(differences, key=lambda found: -found.max_abs)),
        not_finite=tuple(name for one in compared for name in one.not_finite),
        forward=forward,
    )


@dataclass(frozen=True)
class _Compared:
    differences: list[TensorDifference]
    not_finite: list[str]


def _compare_tensors(
    weights: HfWeights,
    megatron: MegatronCheckpoint,
    mapped: tuple[MappedTensor, ...],
    progress: Progress,
) -> Iterator[_Compared]:
    progress.start("comparing", sum(info.num_bytes for info in weights.tensors.values()))
    ours, theirs = Scratch(), Scratch()
    for tensor in mapped:
        fused = ours.tensor(tensor.size, megatron.tensors[tensor.key].dtype)
        megatron.read_mapped(tensor, fused)
        found = _Compared([], not_finite_parts(tensor, fused))
        for name, view in zip(tensor.hf_names, tensor.views(fused), strict=True):
            original = theirs.tensor(view.shape, weights.tensors[name].dtype)
            weights.read_into(name, original)
            progress.advance(original.nbytes)
            if not same_bits(original, view):
                found.differences.append(difference(name, original, view))
        yield found


def _compare_forward(
    hf_folder: Path, shape: ModelShape, megatron: MegatronCheckpoint, weights: HfWeights
) -> ForwardReport:
    reader = CheckpointReader(megatron)
    with MegatronProcess() as process:
        return ForwardReport(
            read_otherwise=tuple(transformers_side.differences_in_reading(hf_folder, shape)),
            tokenizer=difference_of_tokenizers(hf_folder),
            whole_model=comparison.whole_model(process, hf_folder, shape, reader),
            long_document=comparison.long_document(
                process, hf_folder, shape, reader, lambda name: read_tensor(weights, name)
            ),
        )
