"""The sliding window of dense Qwen models: switched on or off, and layer by layer."""

from megatron_msm.models.config_fields import Config, ConfigFields

WINDOW_DEFAULTS: Config = {
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_TYPES = ("full_attention", "sliding_attention")


def window_of_layers(fields: ConfigFields) -> int | None:
    """Return the window if any layer has it.

    Source: transformers 5.24, configuration_qwen2.py, `__post_init__`: layers from
    `max_window_layers` on have it, unless `layer_types` says which.

    Raises:
        CheckpointError: `layer_types` speaks of a window that is switched off, or is malformed.
    """
    num_layers = fields.count("num_hidden_layers")
    window = fields.count_or_none("sliding_window")
    first = fields.take("max_window_layers")
    types = fields.take("layer_types")
    if not fields.flag("use_sliding_window"):
        window = None
    if types is None:
        if type(first) is not int or first < 0:
            needed = "the number of layers without a window is needed"
            raise fields.refusal("max_window_layers", first, needed)
        return window if first < num_layers else None
    if (
        not isinstance(types, list)
        or len(types) != num_layers
        or not {*map(str, types)} <= {*_TYPES}
    ):
        needed = f"one of {', '.join(_TYPES)} for each of {num_layers} layers is needed"
        raise fields.refusal("layer_types", types, needed)
    if "sliding_attention" not in types:
        return None
    if window is None:
        raise fields.refusal("layer_types", types, "but the sliding window is switched off")
    return window
