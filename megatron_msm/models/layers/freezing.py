"""Weights that a run leaves as they are."""

from collections.abc import Collection

from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor
from megatron.core.dist_checkpointing.state_dict_utils import load_preprocess
from megatron.core.models.gpt.gpt_model import GPTModel

from megatron_msm.errors import ConfigError


def freeze(chunk: GPTModel, state: ShardedStateDict, keys: Collection[str]) -> None:
    """Leave weights without gradients.

    Args:
        chunk: One of this rank's.
        state: Its shards by their names in the chunk.
        keys: Checkpoint keys of what is frozen; of a tied embedding all copies are.

    Raises:
        ConfigError: The chunk has nothing left to train, which its pipeline stage needs.
    """
    for name, parameter in chunk.named_parameters():
        shards, _, _ = load_preprocess({name: state[name]})
        found = {shard.key for shard in nested_values(shards) if isinstance(shard, ShardedTensor)}
        if found.intersection(keys):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in chunk.parameters()):
        raise ConfigError(
            "freeze: every weight of a pipeline stage is named, so nothing would be passed back "
            "through it. Use fewer stages, or other parallel.layers_per_stage."
        )
    keep_gradients_through_recomputation(chunk)


def keep_gradients_through_recomputation(chunk: GPTModel) -> None:
    """Let the first layers' weights have gradients when the embedding before them is frozen.

    A recomputed block passes gradients to its parameters only if its input has one
    (tensor_parallel/random.py, CheckpointFunction).
    """
    if not chunk.pre_process or chunk.config.recompute_granularity is None:
        return
    if not any(parameter.requires_grad for parameter in chunk.embedding.parameters()):
        chunk.embedding.register_forward_hook(lambda module, args, out: out.requires_grad_())
