"""PEFT's adapter_config.json, read by an allow-list and written. No peft is needed.

Every field is read, known to change nothing, or refused by name and value. What can be taken over
is LoRA as it is trained here: one rank and one scale for all layers, on base weights as they are.

Source: peft 0.21.2, tuners/lora/config.py `LoraConfig` with its base classes in config.py; what
each field does, tuners/lora/layer.py (`update_layer`, the table of variants) and variants.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import AdapterRecord
from megatron_msm.formats.json_types import JsonRow

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
READ = frozenset({"r", "lora_alpha", "use_rslora"})
CHANGES_NOTHING: Mapping[str, frozenset[str]] = {
    "says where it comes from": frozenset({
        "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision",
    }),
    "chooses modules; the tensors of the file say which have an adapter": frozenset({
        "exclude_modules", "layers_pattern", "target_modules",
    }),
    "acts during training by PEFT only": frozenset({"lora_dropout", "velora_config"}),
    "belongs to another field, which is refused when it is on": frozenset({
        "corda_config", "ensure_weight_tying", "eva_config", "loftq_config", "lora_ga_config",
        "qalora_group_size",
    }),
    "speaks of PEFT's own use of megatron-core": frozenset({"megatron_config", "megatron_core"}),
    "is not saved, and ignored when it is there": frozenset({"runtime_config"}),
}  # fmt: skip
"""Fields of any value, by the reason."""
ONLY_THESE: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "alora_invocation_tokens": (None,),
    "alpha_pattern": (None, {}),
    "arrow_config": (None,),
    "bias": ("none",),
    "fan_in_fan_out": (None, False),
    # Base weights stay as they are; what A and B begin with is in the file, trained on or not.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal", "mica"),
    "kasa_config": (None,),
    "layer_replication": (None, []),
    "layers_to_transform": (None, []),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "monteclora_config": (None,),
    "rank_pattern": (None, {}),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (None,),
    "use_dora": (None, False),
    "use_qalora": (None, False),
}
"""Fields that may be absent, and otherwise have one of these values."""
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MERGE = "Merge the adapter with PEFT (merge_and_unload) and import the result."


@dataclass(frozen=True)
class PeftSettings:
    """What an adapter_config.json says of the adapters' scale and size."""

    rank: int
    alpha: float
    rank_stabilized: bool


def read_peft_config(folder: Path) -> PeftSettings:
    """Read `folder/adapter_config.json`.

    Raises:
        CheckpointError: It is missing or malformed, or a field is not known or asks for more than
            plain LoRA.
    """
    path = folder / CONFIG_FILE
    try:
        config = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found. Give a folder that PEFT saved.") from None
    except (orjson.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path}: not a LoRA configuration ({error!r}).") from None
    missing = READ - {"use_rslora"} - config.keys() if isinstance(config, dict) else READ
    if missing:
        raise CheckpointError(
            f"{path}: not a LoRA configuration (without {', '.join(sorted(missing))})."
        )
    for name, value in config.items():
        _check_field(path, name, value)
    return PeftSettings(
        rank=config["r"],
        alpha=config["lora_alpha"],
        rank_stabilized=config.get("use_rslora") or False,
    )


def _check_field(path: Path, name: str, value: object) -> None:
    if name in READ:
        _check_read(path, name, value)
    elif name in ONLY_THESE:
        if not any(_is_same(value, other) for other in ONLY_THESE[name]):
            raise _refusal(path, name, value)
    elif not any(name in names for names in CHANGES_NOTHING.values()):
        raise CheckpointError(
            f"{path}: {name}={_shown(value)}: this field is not known, and what is not known may "
            f"change what the adapter computes. If it changes nothing, remove it; else: {_MERGE}"
        )


def _check_read(path: Path, name: str, value: object) -> None:
    if name == "use_rslora":
        is_right = value is None or isinstance(value, bool)
    elif name == "r":
        is_right = type(value) is int and value > 0
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_right = is_number and 0 < float(str(value)) < math.inf
    if not is_right:
        raise CheckpointError(f"{path}: {name}={_shown(value)} cannot be taken over. {_MERGE}")


def _refusal(path: Path, name: str, value: object) -> CheckpointError:
    advice = _MERGE
    if name == "init_lora_weights" and str(value).lower().startswith(_CHANGES_BASE):
        advice = (
            "This initialisation changed the base's weights, and the adapter belongs to the "
            "changed ones. In PEFT, save it with path_initial_model_for_weight_conversion, which "
            "makes it one of the base as it was, or merge it and import the result."
        )
    elif name == "task_type":
        advice = "Its model had another head than a language model's. Give a CAUSAL_LM adapter."
    return CheckpointError(f"{path}: {name}={_shown(value)} cannot be taken over. {advice}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_same(one: object, other: object) -> bool:
    """Compare as JSON does: true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def peft_config(
    adapter: AdapterRecord, *, modules: list[str], base: str, revision: str | None
) -> JsonRow:
    """Return the content of an adapter_config.json.

    Args:
        adapter: The adapters.
        modules: Hugging Face's names of the projections that have one.
        base: Where `AutoPeftModelForCausalLM` finds the base: a hub's name, or a folder.
        revision: The base's commit on the hub.
    """
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": adapter.rank,
        "lora_alpha": int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,
        "use_rslora": adapter.rank_stabilized,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": modules,
        "inference_mode": True,
    }
