"""A Hugging Face folder, opened for scoring: what is wrong with it is said before it is scored."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from megatron_msm.convert.forward.transformers_side import differences_in_reading
from megatron_msm.convert.huggingface.causal_lm import open_causal_lm
from megatron_msm.convert.tokenizer_readings import difference_of_tokenizers
from megatron_msm.errors import CheckpointError, ConfigError
from megatron_msm.formats.checkpoint_folder import EXPORT_FILE
from megatron_msm.formats.eval_result import ModelRecord
from megatron_msm.formats.fetched_models import fetch_hint
from megatron_msm.formats.files import sha256_of_file, sha256_of_json
from megatron_msm.formats.json_input import parse_json, read_file
from megatron_msm.formats.json_types import JsonObject, as_objects
from megatron_msm.formats.tokenizer_files import TokenizerFiles, read_tokenizer_files
from megatron_msm.models.hf_config import read_model_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_EXPORT_AGAIN = "Export the model again with `msm convert export`."

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class OpenModel:
    """A model ready to score, with its tokenizer and its identity."""

    model: "PreTrainedModel"
    """A causal language model, in evaluation mode on its device."""
    tokenizer: "PreTrainedTokenizerBase"
    tokenizer_files: TokenizerFiles
    record: ModelRecord

    @property
    def max_length(self) -> int | None:
        """Longest sequence the model was made for, in tokens; None where it does not say."""
        length = getattr(self.model.config, "max_position_embeddings", None)
        return length if isinstance(length, int) else None


def check_folder(folder: Path) -> TokenizerFiles:
    """Check what can be checked without loading weights; return the tokenizer's files.

    Raises:
        CheckpointError: The folder is not a Hugging Face model.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder. Give the folder of a Hugging Face model."
            f"{fetch_hint(folder)}"
        )
    if not (folder / "config.json").is_file():
        hint = "Give the folder of a Hugging Face model."
        if any(folder.glob("iter_*")) or (folder / "msm_state.json").exists():
            hint = "It is a Megatron checkpoint: make the folder with `msm convert export`."
        raise CheckpointError(f"{folder}: not a Hugging Face model, no config.json. {hint}")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder}: no *.safetensors file. Save the weights as safetensors; pickled weights "
            "(*.bin) are not read, since loading them can run code."
        )
    return read_tokenizer_files(folder)


def check_chat_template(folder: Path, files: TokenizerFiles) -> None:
    """Refuse a model that cannot be asked in a chat turn as it was trained.

    Raises:
        CheckpointError: The tokenizer has no chat template, or another than in training.
    """
    if not files.chat_template:
        raise CheckpointError(
            f"{folder}: the tokenizer has no chat template, and a chat turn is to be asked. "
            "Add the chat_template.jinja that the model was or will be trained with."
        )
    trained = _read_export(folder).get("chat_template_sha256")
    found = files.chat_template_sha256
    if trained is not None and trained != found:
        raise CheckpointError(
            f"{folder}: the chat template (sha256 {str(found)[:12]}) is not the one that the model "
            f"was trained with ({str(trained)[:12]}, says {EXPORT_FILE}). Export the model again, "
            "or put that chat_template.jinja back."
        )


def bos_of(files: TokenizerFiles) -> tuple[int]:
    """Return the BOS that a document begins with.

    Raises:
        CheckpointError: The tokenizer names none.
    """
    if files.bos_id is None:
        raise CheckpointError(
            f"{files.path}: the tokenizer names no bos_token. Leave out `prepend_bos`."
        )
    return (files.bos_id,)


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first GPU, or else the CPU.

    Raises:
        ConfigError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: {reason}. Use auto, cpu, cuda or cuda:N.") from None
    return device


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer with the chat template that is hashed, without loading weights."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.chat_template = read_tokenizer_files(folder).chat_template
    return tokenizer


def open_model(folder: Path, *, dtype: str, device: torch.device, label: str | None) -> OpenModel:
    """Load model and tokenizer from a Hugging Face folder.

    Args:
        folder: The folder.
        dtype: A key of `DTYPES`.
        device: Where the model goes.
        label: The model's name in tables; the folder's name without it.

    Raises:
        CheckpointError: The folder is incomplete or does not fit together.
    """
    files = check_folder(folder)
    _check_readings(folder)
    model, tokenizer = open_causal_lm(folder, dtype=DTYPES[dtype])
    _check_vocabulary(folder, model, files)
    # The template that was hashed is the one that is used.
    tokenizer.chat_template = files.chat_template
    return OpenModel(
        model=model.to(device),
        tokenizer=tokenizer,
        tokenizer_files=files,
        record=describe_folder(folder, files, label),
    )


def _check_readings(folder: Path) -> None:
    """Refuse to score another model than was trained: a config.json has more than one reading.

    A tokenizer too: what differs there is said.
    """
    tokenizer = difference_of_tokenizers(folder)
    if tokenizer is not None:
        logger.warning("%s: %s, which is used here", folder, tokenizer)
    try:
        shape = read_model_shape(folder)
    except CheckpointError:
        return  # of an architecture that is not trained here: transformers' reading is the only one
    differences = differences_in_reading(folder, shape)
    if differences:
        raise CheckpointError(
            f"{folder}: {'; '.join(differences)}. The results would be of another model than the "
            "one that was trained. Use transformers 5, which reads it as it was trained."
        )


def _check_vocabulary(folder: Path, model: "PreTrainedModel", files: TokenizerFiles) -> None:
    vocabulary = model.get_input_embeddings().num_embeddings
    if files.vocab_size > vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has {files.vocab_size} tokens and the model {vocabulary}. "
            "They are not of the same model: copy the tokenizer that the model was trained with."
        )


def describe_folder(folder: Path, files: TokenizerFiles, label: str | None) -> ModelRecord:
    """Return a folder's identity: the hashes of its weights and template, and its lineage."""
    weight_files = {
        path.name: sha256_of_file(path) for path in sorted(folder.glob("*.safetensors"))
    }
    return ModelRecord(
        label=label or folder.resolve().name,
        path=str(folder.resolve()),
        weights_sha256=sha256_of_json(weight_files),
        weight_files=weight_files,
        chat_template_sha256=files.chat_template_sha256,
        lineage=_read_lineage(folder),
    )


def _read_lineage(folder: Path) -> list[JsonObject] | None:
    export = _read_export(folder)
    if not export:
        return None
    stages = as_objects(export.get("lineage"))
    if stages is None:
        raise CheckpointError(
            f"{folder / EXPORT_FILE}: field `lineage` is not a list of stages. {_EXPORT_AGAIN}"
        )
    return stages


def _read_export(folder: Path) -> JsonObject:
    """Return what an exported folder says of itself; nothing where it was not exported."""
    path = folder / EXPORT_FILE
    if not path.exists():
        return {}
    content = parse_json(
        read_file(path, what="export record", remedy=_EXPORT_AGAIN), where=str(path)
    )
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: is not a record of an export. {_EXPORT_AGAIN}")
    return content
