"""Reading a Hugging Face config.json into a `ModelShape`. No torch and no transformers.

Everything a config may ask for is either taken over exactly or refused: a field that is silently
ignored would train another model.
"""

from pathlib import Path

import orjson

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.fetched_models import fetch_hint
from megatron_msm.formats.json_types import JsonObject, JsonValue
from megatron_msm.models.architecture import HfConfig
from megatron_msm.models.families.registry import ARCHITECTURES
from megatron_msm.models.families.unsupported import explain
from megatron_msm.models.shape import ModelShape


def read_model_shape(folder: Path) -> ModelShape:
    """Read the model's shape from `folder/config.json`.

    Raises:
        CheckpointError: The file is missing, broken, or describes a model that is not supported.
    """
    return read_hf_config(folder).shape


def read_hf_config(folder: Path) -> HfConfig:
    """Read `folder/config.json`.

    Raises:
        CheckpointError: The file is missing, broken, or describes a model that is not supported.
    """
    path = folder / "config.json"
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is no file that could be read. Remove or replace it.")
    try:
        config: JsonValue = orjson.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path}: not found or not readable ({error.strerror}). Give a Hugging Face model "
            f"folder (config.json, *.safetensors).{fetch_hint(folder)}"
        ) from None
    except orjson.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    return _read(config, source=str(path))


def shape_from_hf_config(config: JsonObject, *, source: str) -> ModelShape:
    """Translate a Hugging Face config into a `ModelShape`.

    Args:
        config: The parsed config.json.
        source: File name for messages.

    Raises:
        CheckpointError: A field is malformed, or asks for something that is not supported.
    """
    return _read(config, source=source).shape


def _read(config: object, *, source: str) -> HfConfig:
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{source}: an object with the model's fields is needed, not {str(config)[:60]!r}."
        )
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"{source}: model_type {str(model_type)[:60]!r} is not supported."
            f"{explain(str(model_type), ARCHITECTURES)} Supported: {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[model_type].read(config, source)
