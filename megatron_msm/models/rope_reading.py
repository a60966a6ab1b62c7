"""Rotary embeddings as a config.json states them: up to three sections, two generations of readers.

    transformers 5   rope_scaling, or else rope_parameters, is taken whole; what it lacks comes from
                     the top level (rope_theta), then from defaults
    transformers 4   rope_theta at the top level, and rope_scaling; rope_parameters is not known

The reading here is that of transformers 5. Whatever the file states beside it must say the same,
or the folder is refused: one of two statements would be lost. Where transformers 4 would read
something else without an error, a remark says so.

Source: transformers 5.24, modeling_rope_utils.py, `RotaryEmbeddingConfigMixin`; transformers 4.57,
`modeling_rope_utils.py`, and the configuration files of the five families.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from megatron_msm.formats.json_types import JsonValue
from megatron_msm.models.config_fields import Config, ConfigFields, is_count, is_positive
from megatron_msm.models.shape import RopeScaling

_DEFAULT_THETA = 10000.0
_ORIGINAL = "original_max_position_embeddings"
_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
    "yarn": ("factor", _ORIGINAL),
}
_OPTIONAL = {
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
}
# Stated for other kinds and read for none of these.
_NOT_READ = {"default": (_ORIGINAL,), "linear": (_ORIGINAL,), "llama3": (), "yarn": ()}


@dataclass(frozen=True)
class Rope:
    """What a config says about rotary embeddings."""

    theta: float
    scaling: RopeScaling | None
    remarks: tuple[str, ...]
    """How transformers 4 reads it, where that is something else."""


def read_rope(fields: ConfigFields) -> Rope:
    """Read every field that speaks of rotary embeddings.

    Raises:
        CheckpointError: The kind is not supported, a value is malformed, or two statements differ.
    """
    max_positions = fields.count("max_position_embeddings")
    scaling = _section(fields, "rope_scaling")
    parameters = _section(fields, "rope_parameters")
    taken = dict(scaling or parameters)
    if "rope_theta" not in taken:
        taken["rope_theta"] = _top_theta(fields)
    kind = taken.setdefault("rope_type", taken.get("type", "default"))
    if not isinstance(kind, str) or kind not in _FIELDS:
        section = "rope_scaling" if scaling else "rope_parameters"
        raise fields.refusal(f"{section}.rope_type", kind, f"supported: {', '.join(_FIELDS)}")
    original = fields.take(_ORIGINAL)
    if _ORIGINAL in _FIELDS[kind]:
        if fields.is_given(_ORIGINAL):
            taken[_ORIGINAL] = original
        taken.setdefault(_ORIGINAL, max_positions)
    _refuse_what_is_not_read(fields, taken, kind)
    theta = taken["rope_theta"]
    if not is_positive(theta):
        raise fields.refusal("rope_theta", theta, "a positive number is needed")
    found = Rope(float(theta), _scaling(fields, kind, taken), ())
    other = _as_transformers_4(fields, scaling, max_positions)
    if other == f"reads {_words(found)}":
        return found
    remark = (
        f"rotary embeddings: {_words(found)}, as transformers 5 reads it; transformers 4 {other}"
    )
    return Rope(found.theta, found.scaling, (remark,))


def _top_theta(fields: ConfigFields) -> JsonValue:
    theta = fields.take("rope_theta")
    return _DEFAULT_THETA if theta is None and not fields.is_given("rope_theta") else theta


def _section(fields: ConfigFields, name: str) -> Config:
    value = fields.take(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fields.refusal(name, value, "an object or null is needed")
    return value


def _refuse_what_is_not_read(fields: ConfigFields, taken: Config, kind: str) -> None:
    """Compare every statement of the file with what was taken."""
    read = {"rope_theta", "rope_type", *_FIELDS[kind], *_OPTIONAL.get(kind, ())}
    for path, name, value in _statements(fields):
        if value is None and name != "partial_rotary_factor":
            continue
        if name == "partial_rotary_factor" and value == 1.0:
            continue
        name = "rope_type" if name == "type" else name
        if name in _NOT_READ[kind]:
            continue
        if name not in read:
            raise fields.refusal(path, value, f"it is not read with rope_type {kind!r}")
        if value != taken.get(name):
            raise fields.refusal(
                path,
                value,
                f"but transformers reads {name} {taken.get(name)!r} from elsewhere in the file. "
                "Keep one of them, the one that the model was trained with",
            )


def _statements(fields: ConfigFields) -> Iterator[tuple[str, str, JsonValue]]:
    """Yield path, name and value of everything that is said about rotary embeddings."""
    for name in ("rope_theta", _ORIGINAL):
        yield name, name, fields.take(name) if fields.is_given(name) else None
    for section in ("rope_scaling", "rope_parameters"):
        for name, value in _section(fields, section).items():
            yield f"{section}.{name}", name, value


def _scaling(fields: ConfigFields, kind: str, taken: Config) -> RopeScaling | None:
    if kind == "default":
        return None
    values = {name: taken.get(name) for name in _FIELDS[kind]}
    for name, value in values.items():
        is_right = is_count(value) if name == _ORIGINAL else is_positive(value)
        if not is_right:
            needed = f"rope_type {kind!r} needs a positive number"
            raise fields.refusal(f"{name} of the rotary embeddings", value, needed)
    if kind == "yarn":
        _check_yarn(fields, taken)
        values |= _yarn_settings(taken)
    found = RopeScaling.model_validate({"kind": kind, **values})
    if kind == "llama3" and found.high_freq_factor <= found.low_freq_factor:
        needed = f"it has to be larger than low_freq_factor, {found.low_freq_factor:g}"
        raise fields.refusal("high_freq_factor", found.high_freq_factor, needed)
    return found


def _check_yarn(fields: ConfigFields, taken: Config) -> None:
    factor, theta = _number(taken, "factor"), taken["rope_theta"]
    if factor < 1:
        raise fields.refusal("factor of the rotary embeddings", factor, "yarn needs 1 up")
    if is_positive(theta) and theta <= 1:
        raise fields.refusal("rope_theta", theta, "yarn needs more than 1")
    for name in _OPTIONAL["yarn"]:
        value = taken.get(name)
        if name == "truncate":
            is_right = name not in taken or isinstance(value, bool)
        else:
            is_right = value is None or is_positive(value)
        if not is_right:
            needed = (
                "true or false is needed" if name == "truncate" else "yarn needs null or above 0"
            )
            raise fields.refusal(f"{name} of the rotary embeddings", value, needed)


def _yarn_settings(taken: Config) -> dict[str, float | bool]:
    """Return YaRN's further settings, with what transformers puts in for those that are absent.

    Source: transformers 5.24, modeling_rope_utils.py, `_compute_yarn_parameters`; 4.57 likewise.
    """
    factor, given = _number(taken, "factor"), {name for name in taken if taken[name] is not None}
    if "attention_factor" in given:
        attention_factor = float(_number(taken, "attention_factor"))
    elif {"mscale", "mscale_all_dim"} <= given:
        mscale, of_all = _number(taken, "mscale"), _number(taken, "mscale_all_dim")
        attention_factor = _concentration(factor, mscale) / _concentration(factor, of_all)
    else:
        attention_factor = _concentration(factor, 1.0)
    truncate = taken.get("truncate", True)
    assert isinstance(truncate, bool), "was checked"
    return {
        "attention_factor": attention_factor,
        "beta_fast": _number(taken, "beta_fast") if "beta_fast" in given else 32.0,
        "beta_slow": _number(taken, "beta_slow") if "beta_slow" in given else 1.0,
        "truncate": truncate,
    }


def _number(checked: Config, name: str) -> float:
    """Return a value that was found to be a positive number."""
    value = checked[name]
    assert is_positive(value), "was checked"
    return value


def _concentration(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0


def _as_transformers_4(fields: ConfigFields, scaling: Config, max_positions: int) -> str:
    """Say what transformers 4 does with the same file."""
    theta = _top_theta(fields)
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind is None and fields.take("rope_scaling") is None:
        kind = "default"
    if not _is_taken_by_class_of_4(str(fields.take("model_type")), scaling):
        return "does not load it"
    if kind == "yarn":
        if fields.take("model_type") == "mistral" and fields.take("head_dim") is None:
            return (
                "does not load it"  # its class leaves head_dim None there, and yarn multiplies it
            )
        scaling = {**scaling, _ORIGINAL: scaling.get(_ORIGINAL) or max_positions}
    if not is_positive(theta) or not isinstance(kind, str):
        return "does not load it"
    if any(scaling.get(name) is None for name in _FIELDS[kind]):
        return "does not load it"
    values = {"kind": kind, **{name: scaling[name] for name in _FIELDS[kind]}}
    if kind == "yarn":
        values |= _yarn_settings(scaling)
    found = None if kind == "default" else RopeScaling.model_validate(values)
    return f"reads {_words(Rope(float(theta), found, ()))}"


def _is_taken_by_class_of_4(model_type: str, scaling: Config) -> bool:
    """Return whether a class of transformers 4.57 that is stricter than others takes the section.

    That of OLMo 2 takes the form of the first releases alone, that of Granite needs `rope_type`.
    """
    if not scaling:
        return True
    if model_type == "olmo2":
        factor = scaling.get("factor")
        is_old = {*scaling} == {"type", "factor"} and scaling["type"] == "linear"
        return is_old and isinstance(factor, float) and factor > 1
    return model_type != "granite" or "rope_type" in scaling


def _words(rope: Rope) -> str:
    if rope.scaling is None:
        return f"theta {rope.theta:g}, not stretched"
    settings = rope.scaling.model_dump()
    kind = settings.pop("kind")
    names = [*_FIELDS[kind], *(name for name in _OPTIONAL.get(kind, ()) if name in settings)]
    listed = ", ".join(f"{name} {settings[name]:g}" for name in names)
    return f"theta {rope.theta:g}, {kind} ({listed})"
