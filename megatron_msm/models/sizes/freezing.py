"""Which Megatron tensors a run leaves as they are, by Hugging Face names. No torch."""

import fnmatch
from collections import defaultdict
from collections.abc import Sequence

from megatron_msm.errors import ConfigError
from megatron_msm.models.families.registry import table_for
from megatron_msm.models.shape import ModelShape


def frozen_keys(shape: ModelShape, patterns: Sequence[str]) -> frozenset[str]:
    """Return the checkpoint keys of the tensors that the patterns name.

    Args:
        shape: The model.
        patterns: Of Hugging Face names, as in a shell: `model.layers.[0-3].*`.

    Raises:
        ConfigError: A pattern names nothing, a part of a tensor that Megatron keeps in one piece,
            or nothing is left to train.
    """
    parts: dict[str, list[str]] = defaultdict(list)
    for tensor in table_for(shape).expand(shape):
        parts[tensor.key] += tensor.hf_names
    every = [name for names in parts.values() for name in names]
    for pattern in patterns:
        if not fnmatch.filter(every, pattern):
            raise ConfigError(
                f"freeze: {pattern!r} names no weight of the model. Names are Hugging Face's, such "
                f"as {every[0]} and {every[-1]}."
            )
    frozen = {name for pattern in patterns for name in fnmatch.filter(every, pattern)}
    for key, names in parts.items():
        left = [name for name in names if name not in frozen]
        if left and len(left) < len(names):
            raise ConfigError(
                f"freeze: of {key} {', '.join(sorted(frozen.intersection(names))[:3])} would be "
                f"frozen and {', '.join(left[:3])} trained, but they are one weight here. Name all "
                "of them, or none."
            )
    keys = frozenset(key for key, names in parts.items() if frozen.issuperset(names))
    if len(keys) == len(parts):
        raise ConfigError("freeze: every weight of the model is named. Leave some to be trained.")
    return keys
