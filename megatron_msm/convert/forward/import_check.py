"""Before an import: does Megatron compute with the folder what transformers does?"""

import logging
from pathlib import Path

from megatron_msm.convert.forward import comparison, transformers_side
from megatron_msm.convert.forward.comparison import MegatronProcess
from megatron_msm.convert.forward.model_slice import TensorReader
from megatron_msm.convert.tokenizer_readings import difference_of_tokenizers
from megatron_msm.errors import CheckpointError, MissingExtraError
from megatron_msm.models.shape import ModelShape

logger = logging.getLogger(__name__)


def check_meaning(hf_folder: Path, shape: ModelShape, reader: TensorReader) -> tuple[str, ...]:
    """Compare config.json and tokenizer as both read it, and what both compute with two layers.

    Says so, and compares nothing, when the installed transformers is absent or of a generation
    whose reading is not the one that is taken over.

    Returns:
        What the tokenizer's two readings differ in.

    Raises:
        CheckpointError: The models differ.
    """
    try:
        differences = transformers_side.differences_in_reading(hf_folder, shape)
    except MissingExtraError as error:
        logger.warning("%s: not compared with transformers: %s", hf_folder, error)
        return ()
    if differences and not transformers_side.is_generation_5():
        logger.warning("%s: not compared with transformers: %s", hf_folder, "; ".join(differences))
        return ()
    if differences:
        raise CheckpointError(
            f"{hf_folder / 'config.json'}: {'; '.join(differences)}. Please report this; with "
            "--no-check the folder is imported as it is read here."
        )
    with MegatronProcess() as process:
        found = comparison.short_document(process, hf_folder, shape, reader)
    if not found.is_same:
        raise CheckpointError(
            f"{hf_folder}: Megatron computes other logits with it than transformers: relative "
            f"difference {found.relative:.3g} at position {found.position} of "
            f"{found.num_positions}. Weights that are not finite have this effect; otherwise "
            "please report it. With --no-check the folder is imported nevertheless."
        )
    remark = difference_of_tokenizers(hf_folder)
    return () if remark is None else (remark,)
