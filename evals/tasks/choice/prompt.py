"""How a forced-choice item becomes tokens: the protocol, versioned and hashed.

The user's turn holds the question, the two options as lines, and an instruction. The model's own
chat template renders it up to where the assistant's answer starts, and an option's text is the
answer. Prompt and answer are tokenised apart and joined, because that is what generation does: a
model never sees a token that spans the two.
"""

import datetime
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from evals.models.continuations import Continuation
from evals.tasks.choice.items import ChoiceItem, ItemSet
from megatron_msm.errors import CheckpointError, DataFormatError
from megatron_msm.formats.eval_result import Protocol

PROTOCOL_NAME = "forced-choice-logprob"
PROTOCOL_VERSION = 1
"""Raise it when anything below changes: results of different versions are not compared."""

PROMPT_TEMPLATE = """\
{question}

- {first}
- {second}

Answer with one of the two options only, in the words given."""

TEMPLATE_DATE = datetime.date(2024, 7, 26)
"""What a chat template that asks for today gets, so that a result does not depend on the day."""

DATE_FORMS = ("%-d", "%-m", "%d", "%m", "%b", "%B", "%y", "%Y", "%a", "%A", "%H", "%M", "%S")
"""What of strftime such templates use."""

SETTINGS: dict[str, Any] = {
    "orders": "both",
    "normalisation": "mean log-probability per token of the answer",
    "end_of_turn_counted": False,
    # Templates that know no such variable ignore it. Those that do put an empty thought before the
    # answer, where an answer without thoughts belongs.
    "enable_thinking": False,
    "template_date": TEMPLATE_DATE.isoformat(),
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


def build_prompts(item: ChoiceItem, tokenizer: Any, *, target: str, other: str) -> ItemPrompts:
    """Return the four token sequences of one item.

    Args:
        item: The item.
        tokenizer: A transformers tokenizer with a chat template.
        target: The label whose option is listed first in `target_first`.
        other: The other label.
    """
    texts = item.option(target).text, item.option(other).text
    answers = [_encode(tokenizer, text) for text in texts]
    orders = []
    for first, second in (texts, texts[::-1]):
        user_text = PROMPT_TEMPLATE.format(question=item.question, first=first, second=second)
        prompt = _encode(tokenizer, render_user_turn(tokenizer, user_text))
        orders.append(OrderedPair(*(Continuation(prompt, answer) for answer in answers)))
    return ItemPrompts(*orders)


def render_user_turn(tokenizer: Any, text: str) -> str:
    """Render one user turn with the chat template, up to the start of the assistant's answer.

    Raises:
        CheckpointError: The template cannot render it.
    """
    try:
        # transformers 5 returns a dict of tensors unless told otherwise: text is asked for, and
        # tokenised by `_encode`, which adds no second BOS.
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            chat_template=_with_fixed_date(tokenizer.chat_template),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=SETTINGS["enable_thinking"],
            date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
        )
    except Exception as error:  # a template is a program of the model's author: anything can come
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the chat template cannot render a user turn "
            f"({type(error).__name__}: {error}). Correct chat_template.jinja in that folder."
        ) from error
    assert isinstance(rendered, str), f"apply_chat_template returned {type(rendered)}"
    return rendered


def check_no_control_tokens(items: Iterable[ChoiceItem], control_tokens: Collection[str]) -> None:
    """Refuse items whose text holds one of the tokenizer's control tokens.

    Written into a rendered chat they would open or close turns, and the item would be another one.

    Raises:
        DataFormatError: With the item, the field and the token.
    """
    for item in items:
        fields = {"question": item.question}
        fields |= {f"options.{n}.text": option.text for n, option in enumerate(item.options)}
        for field, text in fields.items():
            for token in control_tokens:
                if token in text:
                    raise DataFormatError(
                        f"item {item.id!r}: field `{field}` holds {token!r}, a control token of "
                        "the model's tokenizer. Remove it from the text."
                    )


def _with_fixed_date(template: str) -> str:
    """Return a template whose `strftime_now` is a macro that always tells `TEMPLATE_DATE`.

    transformers sets that function itself, and from 5.24 on replaces callables among a template's
    variables by placeholders, so a function cannot be passed in its place.
    """
    if "strftime_now" not in template:
        return template
    replacements = "".join(
        f"|replace('{form}', '{TEMPLATE_DATE.strftime(form)}')" for form in DATE_FORMS
    )
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{replacements} }}}}{{% endmacro %}}"
    return macro + "{{ '' }}" + template


def _encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
