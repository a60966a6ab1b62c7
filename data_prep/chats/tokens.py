"""A conversation's token ids and its loss mask.

The rendered text is encoded in one piece, as transformers does, and the character positions of
tokens say which of them are in an assistant's turn. When the contents spell control tokens, the
text between the template's own control tokens is encoded in pieces, as plain text.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.chats.rendering import ChatRenderer, RenderedChat, Turn
from data_prep.reading.records import RejectLineError
from data_prep.tokenizing.encode import ControlTokenCheck
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.tokenizer_files import (
    TokenizerFiles,
    load_tokenizer,
    read_tokenizer_json,
)

_PROBES = (("user", "assistant"), ("user", "assistant", "user", "assistant"))
"""Roles of the conversations that a template is tried on."""


class EncodedChat(NamedTuple):
    """One row of a chat dataset."""

    text: str
    """The rendered conversation."""
    tokens: npt.NDArray[np.int32]
    mask: npt.NDArray[np.uint8]


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

    Raises:
        DataFormatError: The loss mask cannot be derived exactly for this template.
    """

    def __init__(self, files: TokenizerFiles, renderer: ChatRenderer) -> None:
        self.files = files
        self._renderer = renderer
        self._ids = {**files.control_tokens, **renderer.written_tokens}
        content = read_tokenizer_json(files.path)
        self._tokenizer: Any = load_tokenizer(files, control_tokens_as_text=False, content=content)
        self._plain: Any = load_tokenizer(
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
        messages: list[dict[str, Any]],
        trained: list[bool],
        tools: list[dict[str, Any]] | None = None,
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
        self._check_control(chat, pieces)
        mask = np.zeros(len(pieces.ids), np.uint8)
        for turn in chat.turns:
            if trained[turn.message]:
                self._mark_turn(mask, chat, pieces, turn)
        if not mask.any():
            raise RejectLineError("no token carries loss: every assistant turn has loss false")
        if mask.all():
            raise RejectLineError("every token carries loss: there is no prompt")
        return EncodedChat(chat.text, pieces.ids, mask)

    def _encode_whole(self, chat: RenderedChat) -> _Pieces:
        encoding = self._tokenizer.encode(chat.text, add_special_tokens=False)
        return _pieces(encoding.ids, encoding.offsets)

    def _encode_in_pieces(self, chat: RenderedChat) -> _Pieces:
        if not self._pieces_are_exact:
            raise RejectLineError(
                "its text spells a control token, and this tokenizer encodes text in pieces "
                "differently"
            )
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        for start, end in [*chat.control, (len(chat.text), len(chat.text))]:
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
    ) -> None:
        straddling = np.flatnonzero((pieces.starts < turn.start) & (pieces.ends > turn.start))
        if len(straddling):
            token = chat.text[pieces.starts[straddling[0]] : pieces.ends[straddling[0]]]
            raise RejectLineError(
                f"the token {token!r} lies half in the prompt and half in messages"
                f"[{turn.message}]: take the white space off the beginning of the content"
            )
        eot = np.flatnonzero((pieces.starts <= turn.eot) & (pieces.ends >= turn.eot_end))
        wanted = self._ids[chat.text[turn.eot : turn.eot_end]]
        if len(eot) != 1 or pieces.ids[eot[0]] != wanted:
            raise RejectLineError(
                f"the end of messages[{turn.message}] is not encoded as its end-of-turn token"
            )
        inside = (pieces.starts >= turn.start) & (pieces.starts < turn.eot_end)
        mask[inside] = 1
        assert mask[eot[0]] == 1, "the end-of-turn token carries loss"

    def _probe(self) -> None:
        """Try the template on plain conversations; what fails on these fails on all."""
        for roles in _PROBES:
            messages = [
                {"role": role, "content": f"A{place}b."} for place, role in enumerate(roles)
            ]
            try:
                chat = self._renderer.render(messages)
                self._check_probe(chat, messages)
                self.encode(messages, [role == "assistant" for role in roles])
            except RejectLineError as error:
                if self._renderer.template.has_arguments and roles != _PROBES[0]:
                    # Qwen3 without thinking writes an empty block in the last turn alone. Each
                    # conversation is checked by itself; those trained on the last turn are exact.
                    return
                raise DataFormatError(
                    "chat template: the loss mask cannot be derived exactly. On a conversation of "
                    f"{', '.join(roles)}: {error}. Give another template with --chat-template FILE."
                ) from None
            whole, pieces = self._encode_whole(chat), self._encode_in_pieces(chat)
            if not np.array_equal(whole.ids, pieces.ids):
                self._pieces_are_exact = False
                return

    def _check_probe(self, chat: RenderedChat, messages: list[dict[str, Any]]) -> None:
        """Check that between prompt, content and end of turn there are only tokens and space.

        A header there would mean that the template ignores `add_generation_prompt`, and the
        header would be trained as if it were the assistant's.
        """
        for turn in chat.turns:
            content = messages[turn.message]["content"]
            head, found, tail = chat.text[turn.start : turn.eot].rpartition(content)
            for token in self._ids:
                head = head.replace(token, "")
            if not found or (head + tail).strip():
                raise RejectLineError(
                    f"beside its content {content!r}, the assistant's turn has {head + tail!r}, "
                    "which should be part of the generation prompt"
                )


def _pieces(ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> _Pieces:
    # fromiter is twice as fast as np.array on a list of pairs.
    spans = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(ids)).reshape(-1, 2)
    return _Pieces(np.fromiter(ids, np.int32, len(ids)), spans[:, 0], spans[:, 1])
