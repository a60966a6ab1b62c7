"""The fields of a config.json, read one by one; what is neither read nor known is refused.

A field that nobody looks at would be trained past: `transformers` sets every unknown field as an
attribute, and some of its code, or a serving engine's, may read it.
"""

import math
from collections.abc import Collection, Mapping
from typing import TypeAlias, TypeGuard

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.json_types import JsonValue

Config: TypeAlias = Mapping[str, JsonValue]

_LARGEST_COUNT = 2**31 - 1

# fmt: off
CHANGES_NOTHING: Mapping[str, frozenset[str]] = {
    "says where the file comes from": frozenset((
        "_commit_hash", "_name_or_path", "name_or_path", "finetuning_task", "task_specific_params",
        "transformers_version", "unsloth_fixed", "unsloth_version", "transformers.js_config",
    )),
    "speaks of tokens or of the tokenizer, which has files of its own": frozenset((
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id",
        "unk_token_id", "cls_token_id", "mask_token_id", "prefix", "tokenizer_class",
        "model_max_length",
    )),
    "acts on generation only, and generation_config.json comes first": frozenset((
        "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample",
        "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
        "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length",
        "max_new_tokens", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
        "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty",
        "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
        "use_cache", "cache_implementation",
    )),
    "chooses what is returned beside the logits": frozenset((
        "output_attentions", "output_hidden_states", "return_dict", "tie_last_hidden_states",
    )),
    "acts before or during training by transformers; a run has settings of its own": frozenset((
        "attention_dropout", "gradient_checkpointing", "initializer_range", "router_aux_loss_coef",
    )),
    "chooses a kernel, not what it computes": frozenset((
        "_attn_implementation", "attn_implementation", "_attn_implementation_autoset",
        "experts_implementation", "pretraining_tp", "torchscript", "use_bfloat16",
        "tf_legacy_loss",
    )),
    "belongs to heads for classification": frozenset((
        "id2label", "label2id", "num_labels", "problem_type",
    )),
}
"""Fields of any value, by the reason."""
# fmt: on

ONLY_THESE: Mapping[str, tuple[object, ...]] = {
    "add_cross_attention": (None, False),
    "auto_map": (None, {}),
    "chunk_size_feed_forward": (None, 0),
    "cross_attention_hidden_size": (None,),
    "hidden_act": ("silu",),
    "is_decoder": (None, False, True),
    "is_encoder_decoder": (None, False),
    "is_llama_config": (None, True),
    "partial_rotary_factor": (1.0,),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "rope_interleaved": (None, False),
    "tie_encoder_decoder": (None, False),
    "transformers_weights": (None,),
    "use_mrope": (None, False),
}
"""Fields that may be absent, and otherwise have one of these values."""

_ADVICE = {
    "auto_map": "The model would be computed by code in the folder, which is not run here. Remove "
    "the field if transformers' own class computes the same",
    "quantization_config": "Give the weights from before quantisation; if they are that already, "
    "remove the field",
    "transformers_weights": "Put the weights into model.safetensors and remove the field",
}
DTYPES = ("float32", "bfloat16", "float16", "float64")


class ConfigFields:
    """A config.json that remembers what was read of it.

    Args:
        config: Its content.
        source: File name for messages.
        defaults: Values that transformers' class has for fields that are absent.
        never_null: Fields that may be absent, but for which the class does not take null.
    """

    def __init__(
        self, config: Config, *, source: str, defaults: Config, never_null: Collection[str]
    ) -> None:
        self.source = source
        self._config, self._defaults, self._never_null = config, defaults, never_null
        self._read: set[str] = set()

    def take(self, name: str) -> JsonValue:
        """Return a field's value, or the class default, or None."""
        self._read.add(name)
        return self._config.get(name, self._defaults.get(name))

    def is_given(self, name: str) -> bool:
        """Return whether config.json has the field, be it null."""
        return name in self._config

    def count(self, name: str) -> int:
        """Return a positive integer.

        Raises:
            CheckpointError: It is something else.
        """
        value = self.take(name)
        if not is_count(value):
            raise self.refusal(name, value, "a positive integer is needed")
        return int(value)

    def count_or_none(self, name: str) -> int | None:
        """Return a positive integer, or None for null or a field that is absent.

        Raises:
            CheckpointError: It is something else.
        """
        may_be_none = not self.is_given(name) or name not in self._never_null
        return None if self.take(name) is None and may_be_none else self.count(name)

    def number(self, name: str) -> float:
        """Return a positive number.

        Raises:
            CheckpointError: It is something else.
        """
        value = self.take(name)
        if not is_positive(value):
            raise self.refusal(name, value, "a positive number is needed")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return true or false.

        Raises:
            CheckpointError: It is something else.
        """
        value = self.take(name)
        if not isinstance(value, bool):
            raise self.refusal(name, value, "true or false is needed")
        return value

    def refuse_unless(self, name: str, supported: tuple[object, ...]) -> None:
        """Check a field that may be absent.

        Raises:
            CheckpointError: It has none of the supported values.
        """
        value = self.take(name)
        if self.is_given(name) and not any(_is_same(value, other) for other in supported):
            values = " or ".join(repr(other) for other in supported if other is not None)
            only = f"only {values or 'null'} is supported"
            advice = _ADVICE.get(name)
            raise self.refusal(name, value, only if advice is None else f"{only}. {advice}")

    def refuse_the_rest(self, only: Mapping[str, tuple[object, ...]], harmless: Config) -> None:
        """Check every field that was not read.

        Args:
            only: Further fields for which few values are supported.
            harmless: Further fields that change nothing.

        Raises:
            CheckpointError: A field is not known, or has a value that is not supported.
        """
        for name, supported in {**ONLY_THESE, **only}.items():
            self.refuse_unless(name, supported)
        known = self._read.union(harmless, *CHANGES_NOTHING.values())
        for name, value in self._config.items():
            if name not in known:
                raise self.refusal(
                    name,
                    value,
                    "this field is not known, and what is not known may change what the model "
                    "computes. If it changes nothing, remove it",
                )

    def refusal(self, name: str, value: object, needed: str) -> CheckpointError:
        """Return the error for a field's value."""
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return CheckpointError(f"{self.source}: {name} is {shown}; {needed}.")


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value of a JSON file is a positive integer that can be a size."""
    return type(value) is int and 0 < value <= _LARGEST_COUNT


def is_positive(value: object) -> TypeGuard[int | float]:
    """Return whether a value of a JSON file is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf


def _is_same(one: object, other: object) -> bool:
    """Compare as JSON does: true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
