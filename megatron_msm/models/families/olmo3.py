"""OLMo 3: OLMo 2's layers, three of four with a window and with rotary embeddings of their own.

Source: transformers 5.24, configuration_olmo3.py and modeling_olmo3.py.
"""

import dataclasses
from collections.abc import Mapping

from megatron_msm.models.config_fields import ConfigFields
from megatron_msm.models.families.biases import attention_biases
from megatron_msm.models.families.olmo2 import OLMO2
from megatron_msm.models.families.window_layers import FULL, WINDOW, no_bound, read_window_layers
from megatron_msm.models.families.window_ropes import WindowRopes, sections
from megatron_msm.models.rope_reading import Rope

_THETA = 500000.0
_THETA_OF_TRANSFORMERS_4 = 10000.0
_ROPES = WindowRopes(
    theta_fields=dict.fromkeys((FULL, WINDOW), "rope_theta"),
    default_thetas=dict.fromkeys((FULL, WINDOW), _THETA),
)


def _read_rope(fields: ConfigFields) -> Rope:
    """Read what the layers that see all positions have.

    transformers 5 reads `rope_theta` at the top level for these alone, transformers 4 for all.

    Raises:
        CheckpointError: It says something of the layers with a window that is not read.
    """
    rope = _ROPES.read(fields)
    theta = fields.take("rope_theta")
    of_windows = sections(fields).get(WINDOW)
    is_stated = isinstance(of_windows, dict) and "rope_theta" in of_windows
    if fields.is_given("rope_theta") and theta != _THETA and not is_stated:
        needed = (
            f"but transformers reads {_THETA:g} for the layers with a window. State it in "
            f"rope_parameters.{WINDOW}, too"
        )
        raise fields.refusal("rope_theta", theta, needed)
    thetas = {rope.theta, _ROPES.of_windows(fields).theta}
    if fields.is_given("rope_theta") or thetas == {_THETA_OF_TRANSFORMERS_4}:
        return rope
    remark = (
        "rotary embeddings: there is no rope_theta at the top level, where transformers 4 looks "
        f"for that of all layers; it reads {_THETA_OF_TRANSFORMERS_4:g}"
    )
    return dataclasses.replace(rope, remarks=(remark,))


def _biases_and_windows(fields: ConfigFields) -> Mapping[str, object]:
    windows = read_window_layers(fields, full_every=4, rope=_ROPES.of_windows(fields))
    return {**attention_biases(fields), "window_layers": windows}


OLMO3 = dataclasses.replace(
    OLMO2,
    class_name="Olmo3ForCausalLM",
    defaults={**OLMO2.defaults, "sliding_window": 4096},
    read_rope=_read_rope,
    read_window=no_bound,
    more_shape=_biases_and_windows,
)
