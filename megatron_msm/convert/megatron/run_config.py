"""What Megatron-Bridge computed, by the run_config.yaml in its checkpoint, beside a config.json.

Tensors say nothing about rotary embeddings and epsilon. Megatron-Bridge writes its model's settings
beside them; where those are not what the Hugging Face folder says, one of the two is not the model
that was trained (Megatron-Bridge#3077 lost theta, #5097 a linear stretch).

Source: Megatron-Bridge 0.3.1 and 0.6.2, models/gpt_provider.py; megatron-core 0.16.1,
rotary_pos_embedding.py `_apply_scaling`: `rope_scaling` is llama3's, with low 1, high 4 and 8192
original positions whatever the model says.
"""

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from megatron_msm.errors import CheckpointError
from megatron_msm.models.shape import ModelShape

RUN_CONFIG = "run_config.yaml"
_LLAMA3 = (1.0, 4.0, 8192)


def check_run_config(folder: Path, shape: ModelShape) -> None:
    """Compare a checkpoint's run_config.yaml, if there is one, with a model's shape.

    Raises:
        CheckpointError: A setting is another one, or the file is damaged.
    """
    path = folder / RUN_CONFIG
    if not path.is_file():
        return
    found = _read_model(path)
    wanted = {
        "layernorm_epsilon": shape.norm_epsilon,
        "rotary_base": shape.rope_theta,
        "rotary_percent": 1.0,
        **_stretch(shape),
    }
    for name, value in wanted.items():
        if found.get(name, value) != value:
            raise CheckpointError(
                f"{path}: {name} is {found[name]!r}, and by the folder of --hf it is {value!r}. "
                "Give the config.json that says what was trained."
            )


def _read_model(path: Path) -> Mapping[str, object]:
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text())
    except (YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not YAML ({first}). Remove or restore it.") from None
    model = content.get("model") if isinstance(content, dict) else None
    return model if isinstance(model, dict) else {}


def _stretch(shape: ModelShape) -> Mapping[str, object]:
    """Return the settings by which Megatron-Bridge says how rotary embeddings are stretched."""
    scaling = shape.rope_scaling
    settings: dict[str, object] = {
        "position_embedding_type": "rope",
        "rope_scaling": False,
        "seq_len_interpolation_factor": None,
    }
    if scaling is None:
        return settings
    if scaling.kind == "linear":
        return settings | {"seq_len_interpolation_factor": scaling.factor}
    if scaling.kind == "llama3":
        original = scaling.original_max_position_embeddings
        is_megatrons = (scaling.low_freq_factor, scaling.high_freq_factor, original) == _LLAMA3
        # Other settings than its fixed ones megatron-core cannot have computed.
        return settings | {"rope_scaling": is_megatrons, "rope_scaling_factor": scaling.factor}
    return settings | {
        "position_embedding_type": "yarn",
        "yarn_rotary_scaling_factor": scaling.factor,
        "yarn_original_max_position_embeddings": scaling.original_max_position_embeddings,
        "yarn_beta_fast": scaling.beta_fast,
        "yarn_beta_slow": scaling.beta_slow,
        "yarn_correction_range_round_to_int": scaling.truncate,
    }
