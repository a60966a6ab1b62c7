"""`msm prep chats`: conversations to a Megatron indexed dataset with a loss mask."""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.chat_rendering import ChatRenderer
from data_prep.chat_template import ChatTemplate
from data_prep.chat_tokens import ChatEncoder
from data_prep.dataset_writer import open_writer, refuse_foreign_files
from data_prep.fill import Outcome, Row, fill, provenance_row
from data_prep.outcome import Prepared
from data_prep.parse_lines import parse_chats
from data_prep.read_lines import MAX_LINE_BYTES, LineReader, check_inputs
from data_prep.recipe import Recipe, find_finished
from data_prep.records import Blank, Chat, Item, RejectLineError
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.indexed_dataset import token_dtype
from megatron_msm.formats.rejects import Reject
from megatron_msm.formats.tokenizer_files import TokenizerFiles, read_tokenizer_files


@dataclass(frozen=True)
class ChatOptions:
    """The options of `msm prep chats`."""

    tokenizer: Path
    out: Path
    max_length: int
    """Tokens; a longer conversation is rejected."""
    chat_template: Path | None = None
    """None: the tokenizer's own."""
    today: datetime.date | None = None
    """The date that a template may write; None: today's."""
    max_rejects: int = 0
    max_line_bytes: int = MAX_LINE_BYTES
    force: bool = False


def prepare_chats(
    inputs: list[Path],
    options: ChatOptions,
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> Prepared:
    """Render and tokenize conversations into the dataset `options.out`.

    Raises:
        DataFormatError: The template or an input cannot be used, or too many lines are rejected.
        CheckpointError: The tokenizer cannot be used.
    """
    check_inputs(inputs)
    files = read_tokenizer_files(options.tokenizer)
    today = options.today or datetime.datetime.now(tz=datetime.UTC).date()
    template = ChatTemplate(
        _template_text(files, options.chat_template), files.special_tokens, today=today
    )
    recipe = _recipe(files, template, options, today)
    if not options.force:
        refuse_foreign_files(options.out)
        finished = find_finished(options.out, recipe, inputs, max_rejects=options.max_rejects)
        if finished is not None:
            return Prepared(finished, already_made=True)
    encoder = ChatEncoder(files, ChatRenderer(template, files))
    lines = LineReader(inputs, max_line_bytes=options.max_line_bytes, on_bytes=on_bytes)
    dtype = token_dtype(files.vocab_size)
    with open_writer(options.out, dtype=dtype, has_mask=True) as writer:
        fill(
            writer,
            parse_chats(lines),
            lambda batch: encode_chats(batch, encoder, max_length=options.max_length),
            max_rejects=options.max_rejects,
        )
        return Prepared(writer.publish(recipe, lines.entries), already_made=False)


def encode_chats(batch: list[Item], encoder: ChatEncoder, *, max_length: int) -> Iterator[Outcome]:
    """Yield the outcome of each item: chats become rows, the others pass through."""
    for item in batch:
        if isinstance(item, Chat):
            yield _row(item, encoder, max_length=max_length)
        else:
            assert isinstance(item, Reject | Blank), "documents have no place among chats"
            yield item


def _row(chat: Chat, encoder: ChatEncoder, *, max_length: int) -> Row | Reject:
    try:
        encoded = encoder.encode(chat.messages, chat.trained, chat.tools)
    except RejectLineError as error:
        return chat.line.reject(str(error))
    num_tokens = len(encoded.tokens)
    if num_tokens > max_length:
        return chat.line.reject(f"{num_tokens} tokens, longer than --max-length {max_length}")
    provenance = provenance_row(chat.line, chat.carried, text=encoded.text, num_tokens=num_tokens)
    return Row(encoded.tokens, provenance, encoded.mask)


def _template_text(files: TokenizerFiles, path: Path | None) -> str:
    if path is not None:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataFormatError(
                f"{path}: cannot be read as a UTF-8 chat template ({error})."
            ) from None
    if files.chat_template is None:
        raise DataFormatError(
            f"{files.folder}: this tokenizer has no chat template (it is a base model's). "
            "Give one with --chat-template FILE."
        )
    return files.chat_template


def _recipe(
    files: TokenizerFiles, template: ChatTemplate, options: ChatOptions, today: datetime.date
) -> Recipe:
    settings: dict[str, Any] = {
        "max_length": options.max_length,
        "control_tokens": "text",
        "max_line_bytes": options.max_line_bytes,
    }
    if template.uses_date:
        settings["today"] = today.isoformat()
    return Recipe(
        kind="chats",
        tokenizer_sha256=files.tokenizer_sha256,
        tokenizer_path=str(files.folder),
        vocab_size=files.vocab_size,
        settings=settings,
        chat_template=template.text,
    )
