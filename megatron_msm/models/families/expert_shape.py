"""The experts of a layer, as config.json states them."""

from collections.abc import Mapping

from megatron_msm.models.config_fields import ConfigFields


def expert_shape(
    fields: ConfigFields, *, num_experts: int, ffn_hidden_size: int, normalize_weights: bool
) -> Mapping[str, object]:
    """Return the `experts` of a shape.

    Args:
        fields: The config, which names how many experts see a token.
        num_experts: In each layer.
        ffn_hidden_size: Of each expert.
        normalize_weights: A token's weights of its experts are made to add up to one.

    Raises:
        CheckpointError: More experts are to see a token than there are.
    """
    per_token = fields.count("num_experts_per_tok")
    if per_token > num_experts:
        raise fields.refusal("num_experts_per_tok", per_token, f"there are {num_experts} experts")
    return {
        "experts": {
            "num_experts": num_experts,
            "experts_per_token": per_token,
            "ffn_hidden_size": ffn_hidden_size,
            "normalize_weights": normalize_weights,
        }
    }
