"""A conversation's token ids and its loss mask.

The rendered text is encoded in one piece, as transformers does, and the character positions of
tokens say which of them are in an assistant's turn. When the contents spell control tokens, the
text between the template's own control tokens is encoded in pieces, as plain text. Where a token
would lie half in the prompt and half in the turn, the text is encoded in two halves: generation
begins with the tokens of the prompt alone.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.chats.conversation import Turn
from data_prep.chats.rendering import ChatRenderer, RenderedChat
from data_prep.reading.messages import Message
from data_prep.reading.records import RejectLineError
from data_prep.tokenizing.encode import ControlTokenCheck
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.formats.tokenizer_files import (
    TokenizerFiles,
    load_tokenizer,
    read_tokenizer_json,
)

_PROBE: list[Message] = [
    {"role": "user", "content": "A0b."},
    {"role": "assistant", "content": "A1b."},
]
"""A plain conversation: what it ends with is what turns of the template end with."""


class EncodedTurn(NamedTuple):
    """The tokens of one turn that carries loss."""

    message: int
    first: int
    stop: int
    """Behind the last token."""


class EncodedChat(NamedTuple):
    """One row of a chat dataset."""

    text: str
    """The rendered conversation."""
    tokens: npt.NDArray[np.int32]
    mask: npt.NDArray[np.uint8]
    turns: tuple[EncodedTurn, ...]
    """The turns that carry loss, in order."""


class _Pieces(NamedTuple):
    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    """First character of each token."""
    ends: npt.NDArray[np.int64]


class ChatEncoder:
    """Encodes conversations with one template and tokenizer.

    Args:
        files: The tokenizer.
        renderer: The template.
    """

    def __init__(self, files: TokenizerFiles, renderer: ChatRenderer) -> None:
        self.files = files
        self.template = renderer.template
        self._renderer = renderer
        self._ids = {**files.control_tokens, **renderer.written_tokens}
        content = read_tokenizer_json(files.path)
        self._tokenizer = load_tokenizer(files, control_tokens_as_text=False, content=content)
        self._plain = load_tokenizer(
            files,
            control_tokens_as_text=True,
            more_control=renderer.written_tokens,
            content=content,
        )
        unknown = {files.model_unk_id}
        self._check = ControlTokenCheck(
            set(files.control_tokens.values()) - unknown, vocab_size=files.vocab_size
        )
        self._special = {
            token for token, index in files.control_tokens.items() if index not in unknown
        }
        self._pieces_are_exact = True
        self._probe()

    def encode(
        self,
        messages: list[Message],
        trained: list[bool],
        tools: list[JsonObject] | None = None,
    ) -> EncodedChat:
        """Encode one conversation.

        Args:
            messages: The messages, as the template sees them.
            trained: For each message whether it carries loss.
            tools: Tool descriptions, for templates that show them.

        Raises:
            RejectLineError: Its tokens or its mask cannot be told exactly.
        """
        chat = self._renderer.render(messages, tools, trained=trained)
        pieces = self._encode_in_pieces(chat) if chat.spells_control else self._encode_whole(chat)
        starts = [turn.start for turn in chat.turns]
        if any(_straddling(pieces, start) for start in starts):
            pieces = self._encode_in_pieces(chat, starts)
        self._check_control(chat, pieces)
        mask = np.zeros(len(pieces.ids), np.uint8)
        turns = tuple(
            self._mark_turn(mask, chat, pieces, turn)
            for turn in chat.turns
            if trained[turn.message]
        )
        if not mask.any():
            raise RejectLineError("no token carries loss: every assistant turn has loss false")
        if mask.all():
            raise RejectLineError("every token carries loss: there is no prompt")
        return EncodedChat(chat.text, pieces.ids, mask, turns)

    def _encode_whole(self, chat: RenderedChat) -> _Pieces:
        encoding = self._tokenizer.encode(chat.text, add_special_tokens=False)
        return _pieces(encoding.ids, encoding.offsets)

    def _encode_in_pieces(self, chat: RenderedChat, starts: Sequence[int] = ()) -> _Pieces:
        """Encode what is between control tokens and the given offsets by itself."""
        if not self._pieces_are_exact:
            raise RejectLineError(
                "a token lies half in the prompt and half in the turn, and this tokenizer encodes "
                "text in pieces differently: take the white space off the beginning of the content"
                if starts
                else "its text spells a control token, and this tokenizer encodes text in pieces "
                "differently"
            )
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        ends = [*chat.control, *((start, start) for start in starts), (len(chat.text),) * 2]
        for start, end in sorted(ends):
            encoding = self._plain.encode(chat.text[at:start], add_special_tokens=False)
            ids.extend(encoding.ids)
            offsets.extend((first + at, last + at) for first, last in encoding.offsets)
            if end > start:
                ids.append(self._ids[chat.text[start:end]])
                offsets.append((start, end))
            at = end
        return _pieces(ids, offsets)

    def _check_control(self, chat: RenderedChat, pieces: _Pieces) -> None:
        """Check that the control ids are those that the template wrote, and BOS is not doubled."""
        written = sum(chat.text[start:end] in self._special for start, end in chat.control)
        found = self._check.count_in(pieces.ids)
        if found != written:
            raise RejectLineError(
                f"the template writes {written} control tokens, but the tokens contain {found}"
            )
        bos = self.files.bos_id
        if bos is not None and list(pieces.ids[:2]) == [bos, bos]:
            raise RejectLineError(
                f"it begins with two {self.files.bos_token}: take it out of the content"
            )

    def _mark_turn(
        self, mask: npt.NDArray[np.uint8], chat: RenderedChat, pieces: _Pieces, turn: Turn
    ) -> EncodedTurn:
        eot = np.flatnonzero((pieces.starts <= turn.eot) & (pieces.ends >= turn.eot_end))
        wanted = self._ids[chat.text[turn.eot : turn.eot_end]]
        if len(eot) != 1 or pieces.ids[eot[0]] != wanted:
            raise RejectLineError(
                f"the end of messages[{turn.message}] is not encoded as its end-of-turn token"
            )
        inside = np.flatnonzero((pieces.starts >= turn.start) & (pieces.starts < turn.eot_end))
        mask[inside] = 1
        assert mask[eot[0]] == 1, "the end-of-turn token carries loss"
        return EncodedTurn(turn.message, int(inside[0]), int(inside[-1]) + 1)

    def _probe(self) -> None:
        """Learn from a plain conversation how turns end, and whether pieces may be encoded alone.

        A template that refuses it is still used: each conversation is judged by itself.
        """
        try:
            chat = self._renderer.render(_PROBE)
        except RejectLineError:
            self._pieces_are_exact = False
            return
        turn = chat.turns[0]
        self._renderer = self._renderer.with_usual_end(chat.text[turn.eot : turn.eot_end])
        whole, pieces = self._encode_whole(chat), self._encode_in_pieces(chat)
        self._pieces_are_exact = np.array_equal(whole.ids, pieces.ids)


def _straddling(pieces: _Pieces, start: int) -> bool:
    """Whether a token lies on both sides of an offset."""
    return bool(np.any((pieces.starts < start) & (pieces.ends > start)))


def _pieces(ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> _Pieces:
    # fromiter is twice as fast as np.array on a list of pairs.
    spans = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(ids)).reshape(-1, 2)
    return _Pieces(np.fromiter(ids, np.int32, len(ids)), spans[:, 0], spans[:, 1])
