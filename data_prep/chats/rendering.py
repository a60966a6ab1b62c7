r"""A rendered conversation, and which of its characters are the assistant's turns.

    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n
                                                          ^     ^         ^
                                                        start  eot     eot_end

A turn *starts* where the rendering of everything before it, with the generation prompt, ends: that
is where the model takes over when it is used. It *ends* with the last special token that the
template writes for this message, on which generation has to stop. Both are found by rendering the
conversation up to the message, never by searching its contents; what cannot be shown to be exact is
refused, and so is a turn that leaves out a part of its message.
"""

import bisect
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from data_prep.chats.marks import ControlPattern, Marks, choose_marks, mark_messages, mark_value
from data_prep.chats.presence import missing_part
from data_prep.chats.spelling import spelled_for, text_of
from data_prep.chats.template import ChatTemplate
from data_prep.reading.chat_forms import REASONING_FIELDS
from data_prep.reading.records import RejectLineError
from megatron_msm.formats.tokenizer_files import TokenizerFiles

Span = tuple[int, int]
_TURNS_LAST = (
    "--turns last makes each of the assistant's turns a row of its own, with what comes before it "
    "as the template renders it then"
)
_END_OF_TURN = (
    "--end-of-turn TOKEN names a token that ends turns beside the tokenizer's eos_token and those "
    "of generation_config.json"
)


class Turn(NamedTuple):
    """Character positions of one assistant turn in the rendered text."""

    message: int
    start: int
    eot: int
    """Where the end-of-turn token begins."""
    eot_end: int


@dataclass(frozen=True)
class RenderedChat:
    """A rendered conversation."""

    text: str
    control: list[Span]
    """Spans of the added tokens that the template or the assistant wrote as such."""
    spells_control: bool
    """Whether other contents spell such tokens too, which must become plain text."""
    turns: list[Turn]
    """The wanted turns of the assistant, in order."""


@dataclass(frozen=True)
class EndOfTurn:
    """Which tokens may end a turn."""

    stops: frozenset[str] = frozenset()
    """Those on which generation stops; empty: not known."""
    appended: str | None = None
    """Written behind a turn that the template itself does not end."""
    usual: str | None = None
    """What a plain turn of the template ends with, where that is known."""

    def is_wrong(self, token: str) -> bool:
        """Whether a turn that ends with `token` is one on whose end generation would go on."""
        if token in self.stops:
            return False
        return bool(self.stops) if self.usual is None else token != self.usual


class ChatRenderer:
    """Renders conversations and finds the assistant's turns.

    Args:
        template: The chat template.
        files: The tokenizer's added tokens.
        ends: Which tokens end a turn.
        continues_prompt: Whether a last turn that the template does not render as a continuation of
            its generation prompt is taken as written: behind the prompt, the content.
    """

    def __init__(
        self,
        template: ChatTemplate,
        files: TokenizerFiles,
        ends: EndOfTurn | None = None,
        *,
        continues_prompt: bool = False,
    ) -> None:
        self.template = template
        self.ends = ends or EndOfTurn()
        self.written_tokens = {
            token: index
            for token, index in files.added_tokens.items()
            if token not in files.control_tokens and _is_written_by(template.text, token)
        }
        """Added tokens that are not special, but that the template writes: `<think>`."""
        self._files = files
        self._continues_prompt = continues_prompt
        self._special = ControlPattern(files.control_tokens)
        self._every = ControlPattern({**files.control_tokens, **self.written_tokens})
        never = {*self.ends.stops, files.bos_token, self.ends.usual}
        known = bool(self.ends.stops or self.ends.usual)
        self._never_inside = (
            ControlPattern([token for token in files.control_tokens if token in never])
            if known
            else self._special
        )
        """What the assistant cannot write inside a turn, as its generation would end there."""

    def with_usual_end(self, token: str) -> "ChatRenderer":
        """Return a renderer that knows what a plain turn ends with."""
        return ChatRenderer(
            self.template,
            self._files,
            replace(self.ends, usual=token),
            continues_prompt=self._continues_prompt,
        )

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        *,
        trained: list[bool] | None = None,
    ) -> RenderedChat:
        """Render one conversation.

        Args:
            messages: The messages.
            tools: Tool descriptions.
            trained: The messages whose turns are wanted; None: all of the assistant's. The others
                may be rendered differently as history than they were when they were written.

        Raises:
            RejectLineError: The template refuses it, its turns cannot be told exactly, or a turn
                leaves out a part of its message.
        """
        messages, text = spelled_for(self.template, messages, tools)
        wanted = [
            index
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and (trained is None or trained[index])
        ]
        chat = self._conversation(messages, tools, text)
        if self._continues_prompt and wanted == [len(messages) - 1] and wanted != [0]:
            prompt = self._prompt(chat, wanted[0])
            if not text.startswith(prompt):
                chat = self._continued(chat, prompt)
        turns = [self._turn(chat, index) for index in wanted]
        spells = self._every.find(chat.text) != chat.control
        return RenderedChat(chat.text, chat.control, spells, turns)

    def _conversation(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, text: str
    ) -> "_Conversation":
        marks = choose_marks([messages, tools])
        marked_tools = mark_value(tools, self._every, marks.cut)
        marked_messages = mark_messages(messages, marks, self._every, self._never_inside)
        try:
            marked = self.template.render(marked_messages, tools=marked_tools)
        except RejectLineError:
            marked = ""
        if marks.remove(marked) != text:
            raise RejectLineError(
                "the chat template looks into the contents of its messages (they spell a control "
                "token, or are cut or reordered), so it cannot be told what is content"
            )
        return _Conversation(messages, tools, text, *_positions(marked, marks, self._every))

    def _continued(self, chat: "_Conversation", prompt: str) -> "_Conversation":
        """Return the conversation with its last turn as the model would write it after `prompt`.

        Templates of reasoning models leave the reasoning out of every turn they render, and open
        it in the generation prompt: there the turn is the content as it stands.
        """
        index = len(chat.messages) - 1
        message = chat.messages[index]
        if message.get("tool_calls"):
            raise RejectLineError(
                f"the chat template does not go on from its own generation prompt in "
                f"messages[{index}], and how a tool call is written there cannot be told"
            )
        stop = len(chat.text.rstrip())
        end = [span for span in chat.control if span[1] == stop]
        token = chat.text[slice(*end[0])] if end else self.ends.appended
        if token is None:
            raise RejectLineError(
                f"the chat template ends messages[{index}] without a special token; {_END_OF_TURN}"
            )
        before = self._conversation(
            chat.messages[:-1],
            chat.tools,
            self.template.render(chat.messages[:-1], tools=chat.tools),
        )
        control = [span for span in self._every.find(prompt) if span[0] >= len(before.text)]
        if not prompt.startswith(before.text):
            raise RejectLineError(
                f"the chat template renders what comes before messages[{index}] differently with "
                "its generation prompt"
            )
        text = prompt + _after_prompt(message, prompt)
        spans = [
            (start + len(prompt), end + len(prompt))
            for start, end in self._every.find(text[len(prompt) :])
            if not self._never_inside.find(text[len(prompt) :][start:end])
        ]
        continued = _Conversation(
            chat.messages,
            chat.tools,
            text,
            [*before.control, *control, *spans],
            [*before.content_ends, len(text.rstrip())],
            before.others,
        )
        continued.append(token)
        return continued

    def _prompt(self, chat: "_Conversation", index: int) -> str:
        return self.template.render(
            chat.messages[:index], tools=chat.tools, add_generation_prompt=True
        )

    def _turn(self, chat: "_Conversation", index: int) -> Turn:
        where = f"messages[{index}]"
        if index == 0:
            raise RejectLineError(f"{where} is the assistant's: a turn before it is needed")
        prompt = self._prompt(chat, index)
        if not chat.text.startswith(prompt):
            raise RejectLineError(self._why_no_start(chat, index, prompt))
        turn = Turn(index, len(prompt), *self._end_of(chat, index, len(prompt)))
        said = chat.text[turn.start : turn.eot]
        self._check_ignored_prompt(chat, turn, prompt)
        missing = missing_part(chat.messages[index], said, self._every)
        if missing is not None:
            raise RejectLineError(
                f"the chat template leaves out {where}.{missing}, or writes it elsewhere: the "
                f"model would be trained to answer without it; {_TURNS_LAST}"
            )
        return turn

    def _why_no_start(self, chat: "_Conversation", index: int, prompt: str) -> str:
        where = f"messages[{index}]"
        own = self.template.render(chat.messages[: index + 1], tools=chat.tools)
        if own.startswith(prompt):
            return (
                f"the chat template renders what comes before {where} differently when the "
                f"conversation goes on, so the start of the turn cannot be told; {_TURNS_LAST}"
            )
        return (
            f"the chat template does not go on from its own generation prompt in {where}: it "
            f"writes {_departure(own, prompt)!r} where the prompt ends in {prompt[-24:]!r}; "
            "--turns last writes the turn behind the prompt, as the model does"
        )

    def _end_of(self, chat: "_Conversation", index: int, start: int) -> Span:
        """Return the span of the end-of-turn token of the turn that starts at `start`."""
        where = f"messages[{index}]"
        span = self._written_end(chat, index, start)
        token = chat.text[slice(*span)]
        foreign = [place for place in chat.others if start <= place < span[1]]
        ends = [place for place in chat.content_ends if start <= place < span[1]]
        speaks = bool(text_of(chat.messages[index]).strip())
        if foreign or len(ends) > speaks:
            raise RejectLineError(
                f"as history the chat template ends {where} without {token!r}, with which it ends "
                f"a last turn; {_TURNS_LAST}"
            )
        if speaks and not any(start < place <= span[0] for place in ends):
            raise RejectLineError(
                f"the chat template leaves out or moves {where}.content: the model would be "
                "trained to answer without it"
            )
        if self.ends.is_wrong(token):
            stops = ", ".join(sorted(self.ends.stops)) or self.ends.usual
            raise RejectLineError(
                f"the chat template ends {where} with {token!r}, on which generation does not stop "
                f"(it stops on {stops}); {_END_OF_TURN}"
            )
        return span

    def _written_end(self, chat: "_Conversation", index: int, start: int) -> Span:
        """Return the last special token that the template writes for the message."""
        where = f"messages[{index}]"
        messages = chat.messages[: index + 1]
        is_last = len(messages) == len(chat.messages)
        text = chat.text if is_last else self.template.render(messages, tools=chat.tools)
        stop = len(text.rstrip())
        goes_on = chat.text.startswith(text[:stop])
        own = chat if goes_on else self._conversation(messages, chat.tools, text)
        closing = self._closing(own, start, stop)
        if not closing:
            return self._appended_end(chat, len(text), where)
        # A template may write one more token behind a conversation than behind a turn in it.
        for span in reversed(closing):
            if chat.text.startswith(own.text[: span[1]]):
                return span
        token = text[slice(*closing[0])]
        for span in chat.control:
            if span[0] >= start and chat.text[slice(*span)] == token:
                return span
        raise RejectLineError(
            f"as history the chat template ends {where} without {token!r}; {_TURNS_LAST}"
        )

    def _closing(self, own: "_Conversation", start: int, stop: int) -> list[Span]:
        """Return the special tokens with which a text ends, but for white space."""
        said = max((place for place in own.content_ends if place <= stop), default=start)
        inside = [span for span in own.control if max(start, said) <= span[0] and span[1] <= stop]
        closing: list[Span] = []
        for first, last in reversed(inside):
            is_special = self._special.find(own.text[first:last])
            if not is_special or own.text[last:stop].strip():
                break
            closing.insert(0, (first, last))
            stop = first
        return closing

    def _appended_end(self, chat: "_Conversation", stop: int, where: str) -> Span:
        """Return the token behind the turn: the opener of the next message, or one of ours."""
        token = self.ends.appended
        if token is None:
            raise RejectLineError(
                f"the chat template ends {where} without a special token; {_END_OF_TURN}"
            )
        if stop >= len(chat.text):
            return chat.append(token)
        following = [span for span in chat.control if span[0] == stop]
        if following and chat.text[slice(*following[0])] in {token, *self.ends.stops}:
            return following[0]
        raise RejectLineError(
            f"the chat template writes neither {token!r} nor another token that ends turns right "
            f"behind {where}; {_TURNS_LAST}"
        )

    def _check_ignored_prompt(self, chat: "_Conversation", turn: Turn, prompt: str) -> None:
        """Refuse a header in the turn of a template that ignores `add_generation_prompt`.

        It would be trained as if it were the assistant's.
        """
        content = text_of(chat.messages[turn.message]).strip()
        if not content:
            return
        head, found, _ = chat.text[turn.start : turn.eot].partition(content)
        written = [head[slice(*span)] for span in self._every.find(head)]
        for token in written:
            head = head.replace(token, "")
        if not found or not head.strip():
            return
        if self.template.render(chat.messages[: turn.message], tools=chat.tools) == prompt:
            raise RejectLineError(
                f"beside its content {content[:40]!r}, the assistant's turn has {head!r}, which "
                "should be part of the generation prompt"
            )


@dataclass
class _Conversation:
    """A rendered conversation while its turns are looked for. Positions are those in `text`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    text: str
    control: list[Span]
    content_ends: list[int]
    """Behind the last visible character of each of the assistant's contents."""
    others: list[int]
    """The same of everybody else's."""

    def append(self, token: str) -> Span:
        """Write a token behind the text."""
        start = len(self.text)
        self.text += token
        self.control.append((start, len(self.text)))
        return self.control[-1]


def _after_prompt(message: dict[str, Any], prompt: str) -> str:
    """Return what the model writes behind a prompt that may have opened its reasoning."""
    content = text_of(message)
    opens = prompt.rstrip().endswith("<think>")
    reasoning = next((message[name] for name in REASONING_FIELDS if name in message), None)
    if reasoning is not None:
        head = "" if opens else "<think>\n"
        return f"{head}{reasoning.strip()}\n</think>\n\n{content.lstrip()}"
    if opens and content.lstrip().startswith("<think>"):
        rest = content.lstrip().removeprefix("<think>")
        return rest.removeprefix("\n") if prompt.endswith("\n") else rest
    return content


def _positions(
    marked: str, marks: Marks, pattern: ControlPattern
) -> tuple[list[Span], list[int], list[int]]:
    """Return control tokens, ends of the assistant's contents, and ends of the others'."""
    places = [match.start() for match in re.finditer(f"[{''.join(marks)}]", marked)]

    def unmarked(place: int) -> int:
        return place - bisect.bisect_left(places, place)

    def positions_of(mark: str) -> list[int]:
        return [unmarked(place) for place in places if marked[place] == mark]

    control = [(unmarked(start), unmarked(end)) for start, end in pattern.find(marked)]
    return control, positions_of(marks.end), positions_of(marks.others)


def _departure(text: str, prompt: str) -> str:
    """Return the first characters in which a text departs from its prompt."""
    same = 0
    for ours, theirs in zip(text, prompt, strict=False):
        if ours != theirs:
            break
        same += 1
    return text[same : same + 40]


def _is_written_by(template: str, token: str) -> bool:
    """Whether an added token looks like markup and stands in the template's text."""
    has_shape = (token[0], token[-1]) in {("<", ">"), ("[", "]")} and not any(
        map(str.isspace, token)
    )
    return has_shape and token in template
