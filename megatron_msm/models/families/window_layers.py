"""Windows in some layers of a model, which are computed: `layer_types` and `sliding_window`.

Where a window bounds the length that is supported, see `Architecture.read_window`.
"""

from megatron_msm.models.config_fields import ConfigFields
from megatron_msm.models.shape import RopeShape, WindowLayers

WINDOW, FULL = "sliding_attention", "full_attention"


def no_bound(fields: ConfigFields) -> int | None:
    """Say that the window bounds no length, as the layers compute it."""
    return None


def read_window_layers(
    fields: ConfigFields, *, full_every: int, rope: RopeShape
) -> WindowLayers | None:
    """Read which layers have the window.

    Args:
        fields: Of config.json.
        full_every: Where no `layer_types` are given, every so manieth layer sees all positions.
        rope: Rotary embeddings of the layers with a window.

    Raises:
        CheckpointError: `layer_types` or `sliding_window` is malformed.
    """
    types = layer_types(fields, full_every=full_every)
    window = fields.count("sliding_window")
    layers = tuple(layer for layer, kind in enumerate(types) if kind == WINDOW)
    return WindowLayers(window=window, layers=layers, rope=rope) if layers else None


def layer_types(fields: ConfigFields, *, full_every: int) -> list[str]:
    """Return the kind of each layer.

    Raises:
        CheckpointError: `layer_types` is malformed.
    """
    num_layers = fields.count("num_hidden_layers")
    types = fields.take("layer_types")
    if types is None:
        return [FULL if layer % full_every == 0 else WINDOW for layer in range(1, num_layers + 1)]
    if (
        not isinstance(types, list)
        or len(types) != num_layers
        or not {*map(str, types)} <= {WINDOW, FULL}
    ):
        needed = f"one of {FULL}, {WINDOW} for each of {num_layers} layers is needed"
        raise fields.refusal("layer_types", types, needed)
    return [str(kind) for kind in types]
