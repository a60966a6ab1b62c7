"""From one conversation to its rows: reasoning kept or stripped, turns apart, too long ones cut."""

from collections.abc import Iterator
from typing import NamedTuple

from data_prep.chats.encoders import Remedies, Turns
from data_prep.chats.overlong import Overlong, Part, split, truncated
from data_prep.chats.reasoning import Reasoning, has_reasoning, without_reasoning
from data_prep.chats.template import ChatTemplate
from data_prep.chats.tokens import ChatEncoder, EncodedChat
from data_prep.reading.messages import REASONING_FIELDS, Message
from data_prep.reading.records import Chat, RejectLineError
from data_prep.writing.encoded_block import Dropped, Outcome, Row, RowOverlong, provenance_row
from megatron_msm.formats.rejects import Reject

_KNOWN_KEYS = frozenset(
    ("role", "content", "tool_calls", "name", "tool_call_id", *REASONING_FIELDS)
)
"""What a message may hold under any template. Names and ids of tools are no text of the model's."""


class Shape(NamedTuple):
    """What may become of a conversation."""

    max_length: int
    """Tokens of a row."""
    overlong: Overlong = "reject"
    reasoning: Reasoning | None = None
    """None: reasoning is text like any other."""
    turns: Turns = "all"


class Encoders(NamedTuple):
    """The encoder of the rows, and that of the form that has to be possible besides."""

    wanted: ChatEncoder
    other: ChatEncoder
    remedies: Remedies | None = None
    """Says with which argument the template would take a refused conversation."""


class PartOfChat(NamedTuple):
    """A row to be: some messages of a conversation, encoded."""

    messages: Part
    chat: EncodedChat


def chat_outcomes(chat: Chat, encoders: Encoders, shape: Shape) -> Iterator[Outcome]:
    """Yield the rows of one conversation, or the record of why there are none."""
    parts = parts_of_chat(chat, encoders, shape)
    if isinstance(parts, Reject | Dropped):
        yield parts
        return
    is_truncated = shape.overlong == "truncate" and [p.messages for p in parts] != _whole(
        chat, shape.turns
    )
    for index, (_, row) in enumerate(parts):
        utf8 = row.text.encode()
        provenance = provenance_row(
            chat.line,
            chat.carried,
            text=row.text,
            utf8=utf8,
            num_tokens=len(row.tokens),
        )
        overlong: RowOverlong = "continued" if index else "truncated" if is_truncated else None
        lost = encoders.wanted.files.num_lost_bytes(utf8)
        changes = () if index else chat.changes
        yield Row(row.tokens, provenance, row.mask, overlong, lost_bytes=lost, changes=changes)


def parts_of_chat(
    chat: Chat, encoders: Encoders, shape: Shape
) -> list[PartOfChat] | Reject | Dropped:
    """Encode the parts of a conversation that become rows, or say why there are none."""
    try:
        _refuse_unread_keys(chat.messages, encoders.wanted.template)
        forms = _forms(chat, encoders, shape)
        parts = _whole(chat, shape.turns)
        length = max(form.length(part) for form in forms for part in parts)
        if length > shape.max_length and shape.overlong in ("reject", "drop"):
            reason = f"{length} tokens, longer than --max-length {shape.max_length}"
            record = chat.line.reject(reason)
            return Dropped(record) if shape.overlong == "drop" else record
        if length > shape.max_length:
            parts = _cut(chat, forms, shape)
        return [PartOfChat(part, [form.encode(part) for form in forms][-1]) for part in parts]
    except RejectLineError as error:
        remedy = encoders.remedies.for_chat(chat, str(error)) if encoders.remedies else ""
        return chat.line.reject(f"{error}{remedy}")


class _Form:
    """A conversation in one of its forms, of which parts are encoded."""

    def __init__(
        self, chat: Chat, messages: list[Message], encoder: ChatEncoder, turns: Turns
    ) -> None:
        self._chat = chat
        self._turns = turns
        self._messages = messages
        self._encoder = encoder
        self._known: dict[Part, EncodedChat] = {}

    def encode(self, part: Part) -> EncodedChat:
        """Encode some of the messages."""
        if part not in self._known:
            self._known[part] = self._encoder.encode(
                [self._messages[index] for index in part],
                [
                    self._chat.trained[index] and (self._turns == "all" or index == part[-1])
                    for index in part
                ],
                self._chat.tools,
            )
        return self._known[part]

    def length(self, part: Part) -> int:
        """Return how many tokens some of the messages have."""
        return len(self.encode(part).tokens)


def _whole(chat: Chat, turns: Turns) -> list[Part]:
    """Return the parts of a conversation that become rows if none is too long."""
    if turns == "all":
        return [tuple(range(len(chat.messages)))]
    ends = [index for index, carries_loss in enumerate(chat.trained) if carries_loss]
    if not ends:
        raise RejectLineError("no token carries loss: every assistant turn has loss false")
    return [tuple(range(end + 1)) for end in ends]


def _refuse_unread_keys(messages: list[Message], template: ChatTemplate) -> None:
    """Refuse what a message says under a name that neither we nor the template read."""
    for index, message in enumerate(messages):
        for key in message:
            if key not in _KNOWN_KEYS and not template.reads(key):
                raise RejectLineError(
                    f"messages[{index}].{key} is read by nobody, not by the chat template either: "
                    "leave it out, or carry what it says in a field beside the messages"
                )


def _forms(chat: Chat, encoders: Encoders, shape: Shape) -> list[_Form]:
    """Return every form that has to be possible; the last one is wanted."""
    kept, reasoning, turns = chat.messages, shape.reasoning, shape.turns
    if reasoning is None or not has_reasoning(kept):
        return [_Form(chat, kept, encoders.wanted, turns)]
    stripped = without_reasoning(kept)
    other, wanted = (kept, stripped) if reasoning == "strip" else (stripped, kept)
    return [_Form(chat, other, encoders.other, turns), _Form(chat, wanted, encoders.wanted, turns)]


def _cut(chat: Chat, forms: list[_Form], shape: Shape) -> list[Part]:
    def fits(part: Part) -> bool:
        return all(form.length(part) <= shape.max_length for form in forms)

    if shape.overlong == "truncate":
        return [truncated(chat.trained, fits)]
    return split(chat.messages, chat.trained, fits)
