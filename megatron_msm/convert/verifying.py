"""Proof that a checkpoint is the model of a Hugging Face folder: by tensors, and by logits."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from megatron_msm.convert.adapters.merging import open_checkpoint
from megatron_msm.convert.comparing import TensorDifference, difference, same_bits
from megatron_msm.convert.exporting import export_hf
from megatron_msm.convert.file_access import Scratch
from megatron_msm.convert.huggingface.weights import open_hf_weights
from megatron_msm.convert.logits import largest_logit_difference
from megatron_msm.convert.matching import check_hf_weights, check_megatron_tensors
from megatron_msm.convert.progress import NoProgress, Progress
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import read_checkpoint_state, resolve_checkpoint
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.hf_config import read_model_shape


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, and what differs."""

    num_tensors: int
    differences: tuple[TensorDifference, ...]
    """Largest first. Tensors that differ in dtype only have a difference of zero."""
    max_abs_logit_difference: float | None
    """Over fixed prompts, in float32; None when logits were not asked for."""

    @property
    def is_same_model(self) -> bool:
        """True when every value is equal, and so are the logits if they were computed."""
        values_equal = all(found.max_abs == 0.0 for found in self.differences)
        return values_equal and not self.max_abs_logit_difference


def verify(
    hf_folder: Path, checkpoint: Path, *, logits: bool = True, progress: Progress | None = None
) -> VerifyReport:
    """Compare a checkpoint with the Hugging Face folder that it should be equal to.

    Args:
        hf_folder: The folder that was imported, or one exported earlier.
        checkpoint: A checkpoint folder (its newest iteration is taken) or an iteration folder.
        logits: Also export to a temporary folder and compare what `transformers` computes.
        progress: Told how many bytes are done.

    Raises:
        CheckpointError: A tensor is missing or unmapped on either side, or the two are not of the
            same architecture.
        MissingExtraError: Logits are asked for and transformers is not installed.
    """
    progress = progress or NoProgress()
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
    progress.start("comparing", sum(info.num_bytes for info in weights.tensors.values()))
    differences = []
    num_tensors = 0
    ours, theirs = Scratch(), Scratch()
    for tensor in mapped:
        fused = ours.tensor(tensor.size, megatron.tensors[tensor.key].dtype)
        megatron.read_mapped(tensor, fused)
        for name, place in zip(tensor.hf_names, tensor.places(fused), strict=True):
            num_tensors += 1
            original = theirs.tensor(place.shape, weights.tensors[name].dtype)
            weights.read_into(name, original)
            progress.advance(original.nbytes)
            if not same_bits(original, place):
                differences.append(difference(name, original, place))
    return VerifyReport(
        num_tensors=num_tensors,
        differences=tuple(sorted(differences, key=lambda found: -found.max_abs)),
        max_abs_logit_difference=_logit_difference(hf_folder, folder) if logits else None,
    )


def _logit_difference(hf_folder: Path, folder: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="msm-verify-") as scratch:
        exported = Path(scratch) / "model"
        export_hf(folder, exported)
        return largest_logit_difference(hf_folder, exported)
