"""`msm prep chats`: conversations to a Megatron indexed dataset with a loss mask."""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from data_prep.chat_overlong import Overlong
from data_prep.chat_rendering import ChatRenderer
from data_prep.chat_rows import Encoders, Shape, chat_outcomes
from data_prep.chat_template import ChatTemplate
from data_prep.chat_think import Think
from data_prep.chat_tokens import ChatEncoder
from data_prep.dataset_writer import open_writer, refuse_foreign_files
from data_prep.fill import Outcome, fill
from data_prep.inputs import expand_inputs
from data_prep.outcome import Prepared
from data_prep.parse_lines import parse_chats
from data_prep.read_lines import MAX_LINE_BYTES, LineReader
from data_prep.recipe import Recipe, find_finished
from data_prep.records import Blank, Chat, Item, check_carry
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.indexed_dataset import token_dtype
from megatron_msm.formats.manifest import Counts
from megatron_msm.formats.rejects import Reject
from megatron_msm.formats.tokenizer_files import TokenizerFiles, read_tokenizer_files


@dataclass(frozen=True)
class ChatOptions:
    """The options of `msm prep chats`."""

    tokenizer: Path
    out: Path
    max_length: int
    """Tokens of a row."""
    overlong: Overlong = "reject"
    """What becomes of a conversation that is longer."""
    think: Think | None = None
    """Whether `<think>` blocks are kept or stripped; None: they are text like any other."""
    template_arguments: tuple[tuple[str, Any], ...] = ()
    """Variables for the chat template, such as `enable_thinking`."""
    chat_template: Path | None = None
    """None: the tokenizer's own."""
    today: datetime.date | None = None
    """The date that a template may write; None: today's."""
    carry: tuple[str, ...] = ()
    """Further fields of the input line that become columns of the provenance."""
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
    inputs = expand_inputs(inputs)
    check_carry(options.carry)
    files = read_tokenizer_files(options.tokenizer)
    today = options.today or datetime.datetime.now(tz=datetime.UTC).date()
    arguments = dict(options.template_arguments)
    text = _template_text(files, options.chat_template)
    template = ChatTemplate(text, files.special_tokens, today=today, arguments=arguments)
    recipe = _recipe(files, template, options, today)
    if not options.force:
        refuse_foreign_files(options.out)
        finished = find_finished(options.out, recipe, inputs, max_rejects=options.max_rejects)
        if finished is not None:
            return Prepared(finished, already_made=True)
    wanted = other = ChatEncoder(files, ChatRenderer(template, files))
    if arguments and options.think is not None:
        plain = ChatTemplate(text, files.special_tokens, today=today)
        other = ChatEncoder(files, ChatRenderer(plain, files))
    lines = LineReader(inputs, max_line_bytes=options.max_line_bytes, on_bytes=on_bytes)
    dtype = token_dtype(files.vocab_size)
    shape = Shape(options.max_length, options.overlong, options.think)
    with open_writer(options.out, dtype=dtype, has_mask=True, carry=options.carry) as writer:
        fill(
            writer,
            parse_chats(lines, carry=options.carry),
            lambda batch: encode_chats(batch, Encoders(wanted, other), shape),
            max_rejects=options.max_rejects,
        )
        return Prepared(writer.publish(recipe, lines.entries), already_made=False)


def encode_chats(batch: list[Item], encoders: Encoders, shape: Shape) -> Iterator[Outcome]:
    """Yield the outcomes of each item: chats become rows, the others pass through."""
    for item in batch:
        if isinstance(item, Chat):
            yield from chat_outcomes(item, encoders, shape)
        else:
            assert isinstance(item, Reject | Blank), "documents have no place among chats"
            yield item


def parse_template_arguments(texts: list[str]) -> tuple[tuple[str, Any], ...]:
    """Read NAME=VALUE; the value is JSON (`false`, `3`, `"text"`) or else text as it stands.

    Raises:
        ConfigError: It is not of that form, or a name is given twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier() or name in arguments:
            raise ConfigError(
                f"--template-arg {text}: needed is NAME=VALUE, each name once. "
                "For example: --template-arg enable_thinking=false"
            )
        try:
            arguments[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            arguments[name] = value
    return tuple(sorted(arguments.items()))


def overlong_lines(counts: Counts) -> list[str]:
    """Say what became of the conversations over the limit."""
    said = {
        "conversations over --max-length dropped, listed among the rejects": (
            counts.overlong_dropped
        ),
        "conversations truncated at a turn": counts.overlong_truncated,
        "further rows made by splitting conversations": counts.extra_rows,
    }
    return [f"{count:,} {what}" for what, count in said.items() if count]


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
        "overlong": options.overlong,
        "think": options.think,
        "template_arguments": dict(options.template_arguments),
        "control_tokens": "text",
        "max_line_bytes": options.max_line_bytes,
        "carry": list(options.carry),
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
