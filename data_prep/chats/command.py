"""`msm prep chats`: conversations to a Megatron indexed dataset with a loss mask."""

import datetime
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson

from data_prep.chats.encoders import Remedies, Turns, encoder_for
from data_prep.chats.overlong import Overlong
from data_prep.chats.reasoning import Reasoning
from data_prep.chats.rows import Encoders, Shape, chat_outcomes
from data_prep.chats.template import ChatTemplate
from data_prep.reading.inputs import expand_inputs
from data_prep.reading.parse_lines import parse_chats
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Blank, Chat, Item, check_carry
from data_prep.run_preparation import PreparationOptions, already_prepared, fill
from data_prep.writing.dataset_writer import open_writer
from data_prep.writing.encoded_block import EncodedBlock, Outcome, gather
from data_prep.writing.prepared import Prepared
from data_prep.writing.recipe import Recipe
from data_prep.writing.workers import Task, num_workers_for
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.indexed_dataset import token_dtype
from megatron_msm.formats.json_types import JsonObject, JsonValue
from megatron_msm.formats.manifest import Counts
from megatron_msm.formats.rejects import Reject
from megatron_msm.formats.tokenizer_files import TokenizerFiles, read_tokenizer_files
from megatron_msm.formats.vocabulary import check_tokenizer_fits_its_model
from megatron_msm.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class ChatOptions(PreparationOptions):
    """The options of `msm prep chats`."""

    max_length: int
    """Tokens of a row."""
    overlong: Overlong = "reject"
    """What becomes of a conversation that is longer."""
    reasoning: Reasoning | None = None
    """Whether `<think>` blocks are kept or stripped; None: they are text like any other."""
    turns: Turns = "all"
    """Whether a conversation is one row, or a row for each turn that carries loss."""
    end_of_turn: str | None = None
    """A token that ends turns beside the tokenizer's own, for templates that write none."""
    messages_field: str | None = None
    """The field that holds the messages; None: `messages`, `conversations`, or `prompt`."""
    template_arguments: tuple[tuple[str, JsonValue], ...] = ()
    """Variables for the chat template, such as `enable_thinking`."""
    chat_template: Path | None = None
    """None: the tokenizer's own."""
    today: datetime.date | None = None
    """The date that a template may write; None: today's."""


def prepare_chats(
    inputs: list[Path],
    options: ChatOptions,
    *,
    progress: Progress = SILENT,
) -> Prepared:
    """Render and tokenize conversations into the dataset `options.prefix`.

    Raises:
        DataFormatError: The template or an input cannot be used, or too many lines are rejected.
        CheckpointError: The tokenizer cannot be used.
    """
    inputs = expand_inputs(inputs)
    check_carry(options.carry)
    if options.turns == "last" and options.overlong in ("truncate", "split"):
        raise ConfigError(
            f"--turns last with --overlong {options.overlong}: each turn is a row of its own, and "
            "rows are not cut. Use --overlong reject or drop."
        )
    files = read_tokenizer_files(options.tokenizer)
    check_tokenizer_fits_its_model(files)
    today = options.today or datetime.datetime.now(tz=datetime.UTC).date()
    arguments = dict(options.template_arguments)
    text = _template_text(files, options.chat_template)
    template = ChatTemplate(text, files.special_tokens, today=today, arguments=arguments)
    prefix, shard = options.prefix, options.shard
    reader = LineReader(inputs, shard=shard, max_line_bytes=options.max_line_bytes)
    recipe = _recipe(files, template, options, today)
    if shard is not None:
        recipe = replace(recipe, shard=shard.entry(inputs))
    if (made := already_prepared(options, recipe, reader)) is not None:
        return made
    encoder_with = functools.partial(
        encoder_for,
        files,
        text,
        today=today,
        end_of_turn=options.end_of_turn,
        turns=options.turns,
    )
    wanted = other = encoder_with(arguments=arguments)
    if arguments and options.reasoning is not None:
        other = encoder_with()
    remedies = None if arguments else Remedies(template, encoder_with)
    shape = Shape(options.max_length, options.overlong, options.reasoning, options.turns)
    dtype = token_dtype(files.vocab_size)
    encode = BlockOfChats(
        Encoders(wanted, other, remedies),
        shape,
        dtype=dtype,
        carry=options.carry,
        messages_field=options.messages_field,
    )
    with open_writer(prefix, dtype=dtype, has_mask=True, carry=options.carry) as writer:
        fill(
            writer,
            reader.blocks(),
            encode,
            max_rejects=options.max_rejects,
            num_workers=num_workers_for(reader.parts, options.workers),
            progress=progress,
        )
        manifest = writer.publish(recipe, reader.entries, may_be_empty=shard is not None)
        return Prepared(prefix, manifest, already_made=False)


class BlockOfChats:
    """Turns blocks of lines into rows.

    Args:
        encoders: The encoders of a conversation's forms.
        shape: What may become of a conversation.
        dtype: Of the dataset's tokens.
        carry: Further fields of the input line to keep.
        messages_field: The field that holds the messages.
    """

    def __init__(
        self,
        encoders: Encoders,
        shape: Shape,
        *,
        dtype: np.dtype[np.integer],
        carry: Sequence[str],
        messages_field: str | None = None,
    ) -> None:
        self._encoders = encoders
        self._messages_field = messages_field
        self._shape = shape
        self._dtype = dtype
        self._carry = carry

    def __call__(self, task: Task) -> EncodedBlock:
        """Return the rows of a block, and its lines that are none."""
        lines = task.block.lines()
        items = parse_chats(lines, carry=self._carry, messages_field=self._messages_field)
        outcomes = (
            (item for item in items if isinstance(item, Reject))
            if task.rejects_only
            else encode_chats(items, self._encoders, self._shape)
        )
        return gather(outcomes, dtype=self._dtype, has_mask=True, carry=self._carry)


def encode_chats(items: Iterable[Item], encoders: Encoders, shape: Shape) -> Iterator[Outcome]:
    """Yield the outcomes of each item: chats become rows, the others pass through."""
    for item in items:
        if isinstance(item, Chat):
            yield from chat_outcomes(item, encoders, shape)
        else:
            assert isinstance(item, Reject | Blank), "documents have no place among chats"
            yield item


def parse_template_arguments(texts: list[str]) -> tuple[tuple[str, JsonValue], ...]:
    """Read NAME=VALUE; the value is JSON (`false`, `3`, `"text"`) or else text as it stands.

    Raises:
        ConfigError: It is not of that form, or a name is given twice.
    """
    arguments: JsonObject = {}
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
    """Say what became of conversations over the limit, and what was changed to read the others."""
    said = {
        "conversations over --max-length dropped, listed among the rejects": (
            counts.overlong_dropped
        ),
        "conversations truncated at a turn": counts.overlong_truncated,
        "further rows made by splitting conversations": counts.extra_rows,
        **{f"lines changed: {change}": count for change, count in counts.changes.items()},
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
    settings: JsonObject = {
        "max_length": options.max_length,
        "overlong": options.overlong,
        "think": options.reasoning,
        "template_arguments": dict(options.template_arguments),
        "control_tokens": "text",
        "max_line_bytes": options.max_line_bytes,
        "carry": [*options.carry],
        # Left out where they are as they always were, so that datasets made before stay finished.
        **({} if options.turns == "all" else {"turns": options.turns}),
        **({} if options.end_of_turn is None else {"end_of_turn": options.end_of_turn}),
        **({} if options.messages_field is None else {"messages_field": options.messages_field}),
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
        backend=f"tokenizers {version('tokenizers')}",
    )
