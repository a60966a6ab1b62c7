"""Chats as the model's own template renders them, up to where the answer starts.

Prompt and answer are tokenised apart and joined, because that is what generation does: a model
never sees a token that spans the two.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from evals.models.continuations import Ids
from megatron_msm.errors import CheckpointError, DataFormatError
from megatron_msm.formats.json_types import JsonValue

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE = datetime.date(2024, 7, 26)
"""What a chat template that asks for today gets, so that a result does not depend on the day."""

DATE_FORMS = ("%-d", "%-m", "%d", "%m", "%b", "%B", "%y", "%Y", "%a", "%A", "%H", "%M", "%S")
"""What of strftime such templates use."""

CHAT_SETTINGS: Mapping[str, JsonValue] = {
    # Templates that know no such variable ignore it. Those that do put an empty block of reasoning
    # before the answer, where an answer without reasoning belongs.
    "enable_thinking": False,
    "template_date": TEMPLATE_DATE.isoformat(),
}
"""Part of the protocol of whatever is asked in a chat turn."""


def render_user_turn(tokenizer: "PreTrainedTokenizerBase", text: str) -> str:
    """Render one user turn with the chat template, up to the start of the assistant's answer.

    Raises:
        CheckpointError: The template cannot render it.
    """
    turns = [{"role": "user", "content": text}]
    return _render(tokenizer, turns, enable_thinking=CHAT_SETTINGS["enable_thinking"])


def render_chat(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[dict[str, str]],
    *,
    thinking: bool | None = None,
) -> Ids:
    """Return the tokens of a chat, up to where the assistant's next reply begins.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        messages: `role` and `content` of each turn.
        thinking: What a template with the variable `enable_thinking` gets; None leaves it out.

    Raises:
        CheckpointError: The template cannot render it, or it begins with two BOS tokens.
    """
    variables = {} if thinking is None else {"enable_thinking": thinking}
    return encode_chat(tokenizer, _render(tokenizer, messages, **variables))


def render_tools(
    tokenizer: "PreTrainedTokenizerBase", text: str, tools: Sequence[Mapping[str, object]]
) -> Ids:
    """Return the tokens of one user turn with tools, up to where the assistant's answer starts.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        text: What the user says.
        tools: `name`, `description` and `parameters` (JSON schema) of each.

    Raises:
        CheckpointError: The template cannot render it, or shows no tools.
    """
    functions = [{"type": "function", "function": dict(tool)} for tool in tools]
    turns = [{"role": "user", "content": text}]
    thinking = CHAT_SETTINGS["enable_thinking"]
    rendered = _render(tokenizer, turns, tools=functions, enable_thinking=thinking)
    hidden = [name for name in (str(tool["name"]) for tool in tools) if name not in rendered]
    if hidden:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the chat template does not show the tool {hidden[0]!r} to "
            "the model. Tool calls can be asked of models whose template has `tools`."
        )
    return encode_chat(tokenizer, rendered)


def encode_chat(tokenizer: "PreTrainedTokenizerBase", rendered: str) -> Ids:
    """Return a rendered chat's tokens; its template writes the BOS token where there is one.

    Raises:
        CheckpointError: It begins with two BOS tokens.
    """
    ids, bos = encode(tokenizer, rendered), tokenizer.bos_token_id
    if bos is not None and ids[:2] == (bos, bos):
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the chat template begins with two BOS tokens, which the "
            "model was not trained on. Remove one from chat_template.jinja."
        )
    return ids


def _render(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[dict[str, str]], **variables: object
) -> str:
    try:
        # transformers 5 returns a dict of tensors unless told otherwise: text is asked for, and
        # tokenised by `encode`, which adds no second BOS.
        rendered = tokenizer.apply_chat_template(
            list(messages),
            chat_template=with_fixed_date(tokenizer.chat_template),
            tokenize=False,
            add_generation_prompt=True,
            date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
            **variables,
        )
    except Exception as error:  # a template is a program of the model's author: anything can come
        roles = [turn["role"] for turn in messages]
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the chat template cannot render the turns {roles} "
            f"({type(error).__name__}: {error}). Correct chat_template.jinja in that folder."
        ) from error
    assert isinstance(rendered, str), f"apply_chat_template returned {type(rendered)}"
    return rendered


def check_no_control_tokens(
    item_id: str, fields: Mapping[str, str], control_tokens: Collection[str]
) -> None:
    """Refuse an item whose text holds one of the tokenizer's control tokens.

    Written into a rendered chat they would open or close turns, and the item would be another one.

    Raises:
        DataFormatError: With the item, the field and the token.
    """
    for field, text in fields.items():
        for token in control_tokens:
            if token in text:
                raise DataFormatError(
                    f"item {item_id!r}: field `{field}` holds {token!r}, a control token of "
                    "the model's tokenizer. Remove it from the text."
                )


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> Ids:
    """Return a text's tokens and no other: no BOS is put before it."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def with_fixed_date(template: str) -> str:
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
