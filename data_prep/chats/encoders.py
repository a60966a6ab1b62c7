"""A chat encoder from a tokenizer folder and what the user says of its template."""

import datetime
from collections.abc import Iterator, Mapping
from typing import Literal, Protocol

import orjson

from data_prep.chats.conversation import EndOfTurn
from data_prep.chats.rendering import ChatRenderer
from data_prep.chats.template import ChatTemplate
from data_prep.chats.tokens import ChatEncoder
from data_prep.reading.records import Chat, RejectLineError
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.json_types import JsonObject, JsonValue
from megatron_msm.formats.tokenizer_files import TokenizerFiles

Turns = Literal["all", "last"]
"""Whether a conversation is one row with loss on all its turns, or a row for each turn."""
_MAX_TRIED = 8
"""Arguments of a template that are tried in search of a remedy."""


def encoder_for(
    files: TokenizerFiles,
    template: str,
    *,
    today: datetime.date,
    arguments: Mapping[str, JsonValue] | None = None,
    end_of_turn: str | None = None,
    turns: Turns = "all",
) -> ChatEncoder:
    """Return the encoder of chats for a template.

    Args:
        files: The tokenizer.
        template: The chat template's text.
        today: The date that the template may write.
        arguments: Variables for the template.
        end_of_turn: A token that ends turns too, and that is written behind a turn that the
            template itself does not end.
        turns: With `last`, a turn that the template does not render as a continuation of its
            generation prompt is written behind that prompt.

    Raises:
        ConfigError: `end_of_turn` is not a control token of the tokenizer, or the template does not
            know an argument.
        DataFormatError: The template or generation_config.json cannot be read.
    """
    if end_of_turn is not None and end_of_turn not in files.control_tokens:
        known = ", ".join(list(files.control_tokens)[:12]) or "none"
        raise ConfigError(
            f"--end-of-turn {end_of_turn}: is not a special token of {files.path}. It has {known}."
        )
    stops = {*_stop_tokens(files), *filter(None, (end_of_turn,))}
    renderer = ChatRenderer(
        ChatTemplate(template, files.special_tokens, today=today, arguments=arguments),
        files,
        EndOfTurn(frozenset(stops), appended=end_of_turn),
        continues_prompt=turns == "last",
    )
    return ChatEncoder(files, renderer)


def _stop_tokens(files: TokenizerFiles) -> Iterator[str]:
    """Yield the tokens on which generation stops: `eos_token`, and those of the model's settings.

    Source: transformers `generation/configuration_utils.py`, `eos_token_id`: a number or a list.
    """
    if files.eos_token is not None:
        yield files.eos_token
    path = files.folder / "generation_config.json"
    if not path.is_file():
        return
    try:
        value: JsonValue = orjson.loads(path.read_bytes())
        ids = value.get("eos_token_id") if isinstance(value, dict) else None
    except orjson.JSONDecodeError as error:
        raise DataFormatError(f"{path}: is not JSON ({error}). Repair it or remove it.") from None
    ids = ids if isinstance(ids, list) else [ids]
    for token, index in files.control_tokens.items():
        if index in ids:
            yield token


class EncoderWith(Protocol):
    """Makes an encoder that differs from another one in its template's arguments alone."""

    def __call__(self, *, arguments: Mapping[str, JsonValue]) -> ChatEncoder:
        """Return the encoder with these arguments; raises what `encoder_for` does."""


class Remedies:
    """Finds the template argument that would let a refused conversation pass.

    Each reason is looked into once: the rows of a data set mostly fail for the same one.

    Args:
        template: The template, without arguments.
        encoder_with: Makes an encoder of the same template.
    """

    def __init__(self, template: ChatTemplate, encoder_with: EncoderWith) -> None:
        self._template = template
        self._encoder_with = encoder_with
        self._known: dict[str, str] = {}

    def for_chat(self, chat: Chat, reason: str) -> str:
        """Return what to add to the reason for which `chat` was refused."""
        if reason not in self._known:
            self._known[reason] = self._found(chat)
        return self._known[reason]

    def _found(self, chat: Chat) -> str:
        names = self._template.free_variables
        for name in names[:_MAX_TRIED]:
            for value in (False, True):
                if self._passes(chat, {name: value}):
                    return f". It passes with --template-arg {name}={orjson.dumps(value).decode()}"
        if not names:
            return ""
        return f". None of the template's arguments alone ({', '.join(names)}) lets it pass"

    def _passes(self, chat: Chat, arguments: JsonObject) -> bool:
        try:
            encoder = self._encoder_with(arguments=arguments)
            encoder.encode(chat.messages, chat.trained, chat.tools)
        except (RejectLineError, ConfigError):
            return False
        return True
