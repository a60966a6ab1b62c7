"""Which keys of a model's state are Transformer Engine's records of past scales, no weights."""


def is_extra_state(key: str) -> bool:
    """Return whether a key is such a record: `_extra_state`, or with grouped experts also 1, 2, ...

    They are pickled, so not to be loaded from a file that may come from anywhere. They are empty
    but under FP8 with delayed scaling, where the records start anew.

    Source: megatron-core 0.16.1, extensions/transformer_engine.py:1781.
    """
    return key.rpartition(".")[2].startswith("_extra_state")
