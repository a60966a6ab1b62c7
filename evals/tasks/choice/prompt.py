"""How a forced-choice item becomes tokens: the protocol, versioned and hashed.

The user's turn holds the question, the two options as lines, and an instruction. The model's own
chat template renders it up to where the assistant's answer starts, and an option's text is the
answer.
"""

from typing import TYPE_CHECKING, NamedTuple

from evals.models.chat_turn import CHAT_SETTINGS, encode, encode_chat, render_user_turn
from evals.models.continuations import Continuation
from evals.tasks.choice.items import ChoiceItem, ItemSet
from megatron_msm.formats.eval_result import Protocol
from megatron_msm.formats.json_types import JsonObject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROTOCOL_NAME = "forced-choice-logprob"
PROTOCOL_VERSION = 1
"""Raise it when anything below changes: results of different versions are not compared."""

PROMPT_TEMPLATE = """\
{question}

- {first}
- {second}

Answer with one of the two options only, in the words given."""

SETTINGS: JsonObject = {
    "orders": "both",
    "normalisation": "mean log-probability per token of the answer",
    "end_of_turn_counted": False,
    **CHAT_SETTINGS,
}


class OrderedPair(NamedTuple):
    """One order of listing the options: the same prompt, continued by either answer."""

    target: Continuation
    other: Continuation


class ItemPrompts(NamedTuple):
    """The two orders of one item."""

    target_first: OrderedPair
    other_first: OrderedPair


def choice_protocol(items: ItemSet, dtype: str, chat_template_sha256: str | None) -> Protocol:
    """Return what two results must share to be compared."""
    settings = {
        "prompt_template": PROMPT_TEMPLATE,
        **SETTINGS,
        "dtype": dtype,
        "split": items.split,
        "target": items.target,
    }
    return Protocol(
        task=PROTOCOL_NAME,
        version=PROTOCOL_VERSION,
        items_sha256=items.sha256,
        chat_template_sha256=chat_template_sha256,
        settings=settings,
    )


def build_prompts(
    item: ChoiceItem, tokenizer: "PreTrainedTokenizerBase", *, target: str, other: str
) -> ItemPrompts:
    """Return the four token sequences of one item.

    Args:
        item: The item.
        tokenizer: A transformers tokenizer with a chat template.
        target: The label whose option is listed first in `target_first`.
        other: The other label.
    """
    texts = item.option(target).text, item.option(other).text
    answers = [encode(tokenizer, text) for text in texts]
    orders = []
    for first, second in (texts, texts[::-1]):
        user_text = PROMPT_TEMPLATE.format(question=item.question, first=first, second=second)
        prompt = encode_chat(tokenizer, render_user_turn(tokenizer, user_text))
        orders.append(OrderedPair(*(Continuation(prompt, answer) for answer in answers)))
    return ItemPrompts(*orders)
