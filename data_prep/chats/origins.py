"""Where the loss of a finished row comes from: each turn's message, its parts, what was changed.

A dataset keeps tokens, not messages. The row's line is read again from its input and encoded once
more; only if that gives the very tokens of the row is anything said of it.
"""

import datetime
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from data_prep.chats.encoders import EncoderWith, Turns, encoder_for
from data_prep.chats.overlong import Overlong
from data_prep.chats.reasoning import Reasoning
from data_prep.chats.rows import Encoders, PartOfChat, Shape, parts_of_chat
from data_prep.chats.spelling import text_of
from data_prep.reading.messages import REASONING_FIELDS, Message
from data_prep.reading.parse_lines import parse_chats
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Chat
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.indexed_dataset import TokenArray
from megatron_msm.formats.json_input import check_model
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.formats.manifest import DatasetManifest
from megatron_msm.formats.provenance import ProvenanceRow
from megatron_msm.formats.tokenizer_files import TokenizerFiles


class TurnOrigin(NamedTuple):
    """One run of tokens that carry loss."""

    message: str
    """Such as `messages[3]`."""
    parts: tuple[str, ...]
    """What it says: `content`, `reasoning_content`, `tool_calls[0] get_price`."""
    first: int
    stop: int
    """Behind its last token."""


class RowOrigin(NamedTuple):
    """What a row of chats was made of."""

    turns: tuple[TurnOrigin, ...]
    changes: tuple[str, ...]
    """What was changed to read the line."""
    arguments: JsonObject
    """Arguments of the template in force."""


def origin_of_row(
    manifest: DatasetManifest, source: ProvenanceRow, tokens: TokenArray, files: TokenizerFiles
) -> RowOrigin:
    """Return what a row was made of.

    Raises:
        DataFormatError: The input is not there or not the same any more, or cannot be encoded.
    """
    settings = check_model(
        _Settings, manifest.settings, where="the dataset's settings", remedy="Prepare it again."
    )
    chat = _chat_of(source, settings.messages_field)
    encoder_with = functools.partial(
        encoder_for,
        files,
        str(manifest.chat_template),
        today=settings.today,
        end_of_turn=settings.end_of_turn,
        turns=settings.turns,
    )
    for part in _parts(chat, settings, encoder_with):
        if np.array_equal(part.chat.tokens, tokens):
            turns = tuple(
                TurnOrigin(
                    f"messages[{part.messages[turn.message]}]",
                    _said(chat.messages[part.messages[turn.message]]),
                    turn.first,
                    turn.stop,
                )
                for turn in part.chat.turns
            )
            return RowOrigin(turns, chat.changes, settings.template_arguments)
    raise DataFormatError(
        f"{source.source_file}:{source.source_line} does not give this row any more: the file was "
        "changed since, so what its loss comes from is not known."
    )


class _Settings(BaseModel):
    """What `msm prep chats` wrote into the manifest of its options; left out: as by default."""

    max_length: int
    overlong: Overlong
    think: Reasoning | None = None
    turns: Turns = "all"
    end_of_turn: str | None = None
    messages_field: str | None = None
    template_arguments: JsonObject = {}
    today: datetime.date = datetime.date(1970, 1, 1)
    """Written only where the template reads the date."""


def _chat_of(source: ProvenanceRow, messages_field: str | None) -> Chat:
    where = f"{source.source_file}:{source.source_line}"
    for line in LineReader([Path(source.source_file)]):
        if line.number == source.source_line:
            (item,) = parse_chats([line], messages_field=messages_field)
            if isinstance(item, Chat):
                return item
            break
    raise DataFormatError(f"{where} is no conversation any more: the file was changed since.")


def _parts(chat: Chat, settings: _Settings, encoder_with: EncoderWith) -> list[PartOfChat]:
    wanted = encoder_with(arguments=settings.template_arguments)
    other = encoder_with(arguments={}) if settings.template_arguments else wanted
    shape = Shape(settings.max_length, settings.overlong, settings.think, settings.turns)
    parts = parts_of_chat(chat, Encoders(wanted, other), shape)
    return parts if isinstance(parts, list) else []


def _said(message: Message) -> tuple[str, ...]:
    said: list[str] = [name for name in REASONING_FIELDS if name in message]
    if text_of(message).strip():
        said.append("content")
    said += [
        f"tool_calls[{index}] {call['function']['name']}"
        for index, call in enumerate(message.get("tool_calls") or ())
    ]
    return tuple(said)
