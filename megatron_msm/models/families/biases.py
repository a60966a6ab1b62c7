"""The two switches for biases that several families have."""

from collections.abc import Mapping

from megatron_msm.models.config_fields import Config, ConfigFields

BIAS_DEFAULTS: Config = {"attention_bias": False, "mlp_bias": False}


def attention_biases(fields: ConfigFields) -> Mapping[str, object]:
    """Read `attention_bias`, of all four projections.

    Raises:
        CheckpointError: It is neither true nor false.
    """
    has_biases = fields.flag("attention_bias")
    return {"qkv_bias": has_biases, "attention_output_bias": has_biases}


def biases(fields: ConfigFields) -> Mapping[str, object]:
    """Read `attention_bias`, and `mlp_bias`, of all three projections of the MLP.

    Raises:
        CheckpointError: One is neither true nor false.
    """
    return {**attention_biases(fields), "mlp_bias": fields.flag("mlp_bias")}
