"""From one conversation to its rows: reasoning kept or stripped, too long ones cut."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from data_prep.chats.overlong import Overlong, Part, split, truncated
from data_prep.chats.reasoning import Think, has_reasoning, without_reasoning
from data_prep.chats.tokens import ChatEncoder, EncodedChat
from data_prep.reading.records import Chat, RejectLineError
from data_prep.writing.encoded_block import Dropped, Outcome, Row, RowOverlong, provenance_row


class Shape(NamedTuple):
    """What may become of a conversation."""

    max_length: int
    """Tokens of a row."""
    overlong: Overlong = "reject"
    think: Think | None = None
    """None: reasoning is text like any other."""


class Encoders(NamedTuple):
    """The encoder of the rows, and that of the form that has to be possible besides."""

    wanted: ChatEncoder
    other: ChatEncoder


def chat_outcomes(chat: Chat, encoders: Encoders, shape: Shape) -> Iterator[Outcome]:
    """Yield the rows of one conversation, or the record of why there are none."""
    try:
        forms = _forms(chat, encoders, shape.think)
        whole = tuple(range(len(chat.messages)))
        length = max(form.length(whole) for form in forms)
        if length <= shape.max_length:
            parts = [whole]
        elif shape.overlong in ("reject", "drop"):
            reason = f"{length} tokens, longer than --max-length {shape.max_length}"
            record = chat.line.reject(reason)
            yield Dropped(record) if shape.overlong == "drop" else record
            return
        else:
            parts = _cut(chat, forms, shape)
        encoded = [[form.encode(part) for form in forms][-1] for part in parts]
    except RejectLineError as error:
        yield chat.line.reject(str(error))
        return
    is_truncated = shape.overlong == "truncate" and parts != [whole]
    for place, row in enumerate(encoded):
        utf8 = row.text.encode()
        provenance = provenance_row(
            chat.line,
            chat.carried,
            text=row.text,
            utf8=utf8,
            num_tokens=len(row.tokens),
        )
        overlong: RowOverlong = "continued" if place else "truncated" if is_truncated else None
        lost = encoders.wanted.files.num_lost_bytes(utf8)
        yield Row(row.tokens, provenance, row.mask, overlong, lost_bytes=lost)


class _Form:
    """A conversation in one of its forms, of which parts are encoded."""

    def __init__(self, chat: Chat, messages: list[dict[str, Any]], encoder: ChatEncoder) -> None:
        self._chat = chat
        self._messages = messages
        self._encoder = encoder
        self._known: dict[Part, EncodedChat] = {}

    def encode(self, part: Part) -> EncodedChat:
        """Encode some of the messages."""
        if part not in self._known:
            self._known[part] = self._encoder.encode(
                [self._messages[place] for place in part],
                [self._chat.trained[place] for place in part],
                self._chat.tools,
            )
        return self._known[part]

    def length(self, part: Part) -> int:
        """Return how many tokens some of the messages have."""
        return len(self.encode(part).tokens)


def _forms(chat: Chat, encoders: Encoders, think: Think | None) -> list[_Form]:
    """Return every form that has to be possible; the last one is wanted."""
    kept = chat.messages
    if think is None or not has_reasoning(kept):
        return [_Form(chat, kept, encoders.wanted)]
    stripped = without_reasoning(kept)
    other, wanted = (kept, stripped) if think == "strip" else (stripped, kept)
    return [_Form(chat, other, encoders.other), _Form(chat, wanted, encoders.wanted)]


def _cut(chat: Chat, forms: list[_Form], shape: Shape) -> list[Part]:
    def fits(part: Part) -> bool:
        return all(form.length(part) <= shape.max_length for form in forms)

    if shape.overlong == "truncate":
        return [truncated(chat.trained, fits)]
    return split(chat.messages, chat.trained, fits)
