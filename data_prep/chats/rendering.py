r"""A rendered conversation, and which of its characters are whose.

    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n
                                                          ^     ^         ^
                                                        start  eot     eot_end

A turn *starts* where the rendering of everything before it, with the generation prompt, ends: that
is where the model takes over when it is used. It ends with the first special token that the
template itself writes after that. Nothing is searched for in the contents; each step is checked
against the template's rendering, and what cannot be shown to be exact is refused.
"""

import bisect
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_prep.chats.marks import ControlPattern, Marks, choose_marks, mark_messages, mark_value
from data_prep.chats.template import ChatTemplate
from data_prep.reading.records import RejectLineError
from megatron_msm.formats.tokenizer_files import TokenizerFiles


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
    control: list[tuple[int, int]]
    """Spans of the control tokens that the template wrote."""
    spells_control: bool
    """Whether the contents spell control tokens too, which must become plain text."""
    turns: list[Turn]
    """The wanted turns of the assistant, in order."""


class ChatRenderer:
    """Renders conversations and finds the assistant's turns.

    Args:
        template: The chat template.
        files: The tokenizer's control tokens.
    """

    def __init__(self, template: ChatTemplate, files: TokenizerFiles) -> None:
        self.template = template
        self.written_tokens = {
            token: index
            for token, index in files.added_tokens.items()
            if token not in files.control_tokens and _is_written_by(template.text, token)
        }
        """Added tokens that are not special, but that the template writes: `<think>`."""
        special = ControlPattern(files.control_tokens)
        self._special = special
        self._every = ControlPattern({**files.control_tokens, **self.written_tokens})

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        *,
        trained: list[bool] | None = None,
    ) -> RenderedChat:
        """Render one conversation.

        Args:
            messages: The messages, as the template sees them.
            tools: Tool descriptions.
            trained: The messages whose turns are wanted; None: all of the assistant's. The others
                may be rendered differently as history than they were when they were written.

        Raises:
            RejectLineError: The template refuses it, or its turns cannot be told exactly.
        """
        text = self.template.render(messages, tools=tools)
        marks = choose_marks([messages, tools])
        marked = self._render_marked(text, messages, tools, marks)
        control, ends = _positions(marked, marks, self._every)
        turns = [
            self._turn(text, messages, tools, index, control)
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and (trained is None or trained[index])
        ]
        _check_contents(messages, turns, ends)
        return RenderedChat(text, control, self._every.find(text) != control, turns)

    def _render_marked(
        self,
        text: str,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        marks: Marks,
    ) -> str:
        """Return the rendering of the marked conversation.

        A template may split an assistant's message at `</think>`. Then the tokens that are not
        special stay whole in the assistant's messages, as the assistant itself writes them.
        """
        marked_tools = mark_value(tools, self._every, marks.cut)
        for assistant_pattern in (self._every, self._special):
            marked_messages = mark_messages(messages, marks, self._every, assistant_pattern)
            try:
                marked = self.template.render(marked_messages, tools=marked_tools)
            except RejectLineError:
                continue
            if marks.remove(marked) == text:
                return marked
        raise RejectLineError(
            "the chat template looks into the contents of its messages (they spell a control "
            "token, or are cut or reordered), so it cannot be told what is content"
        )

    def _turn(
        self,
        text: str,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        index: int,
        control: list[tuple[int, int]],
    ) -> Turn:
        where = f"messages[{index}]"
        if index == 0:
            raise RejectLineError(f"{where} is the assistant's: a turn before it is needed")
        prompt = self.template.render(messages[:index], tools=tools, add_generation_prompt=True)
        if not text.startswith(prompt):
            raise RejectLineError(
                f"the chat template renders what comes before {where} differently when the "
                "conversation goes on, so the start of the turn cannot be told"
            )
        after = [span for span in control if span[0] >= len(prompt)]
        special = [span for span in after if self._special.find(text[span[0] : span[1]])]
        if messages[index].get("tool_calls"):
            opener = self._opener(prompt, messages[:index], tools, where)
            special = _last_of_turn(text, special, opener)
        if not special:
            raise RejectLineError(f"the chat template ends {where} without a special token")
        return Turn(index, len(prompt), *special[0])

    def _opener(
        self,
        prompt: str,
        before: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        where: str,
    ) -> str:
        """Return the special token that opens a turn: the first one of the generation prompt."""
        without = self.template.render(before, tools=tools)
        spans = [span for span in self._special.find(prompt) if span[0] >= len(without)]
        if not prompt.startswith(without) or not spans:
            raise RejectLineError(
                f"{where}.tool_calls: the chat template opens turns without a special token, so "
                "the end of a tool call cannot be told"
            )
        return prompt[slice(*spans[0])]


def _last_of_turn(text: str, special: list[tuple[int, int]], opener: str) -> list[tuple[int, int]]:
    """Return the last special token before the next turn opens: the others are the tool call's.

    Llama writes `<|python_tag|>` inside a turn, and ends it with `<|eot_id|>` or `<|eom_id|>`.
    """
    turn: list[tuple[int, int]] = []
    for span in special:
        if text[span[0] : span[1]] == opener:
            break
        turn.append(span)
    return turn[-1:]


def _positions(
    marked: str, marks: Marks, pattern: ControlPattern
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return template-written control spans and end marks, as positions in the unmarked text."""
    places = [match.start() for match in re.finditer(f"[{marks.cut}{marks.end}]", marked)]

    def unmarked(place: int) -> int:
        return place - bisect.bisect_left(places, place)

    control = [(unmarked(start), unmarked(end)) for start, end in pattern.find(marked)]
    return control, [unmarked(place) for place in places if marked[place] == marks.end]


def _check_contents(messages: list[dict[str, Any]], turns: list[Turn], ends: list[int]) -> None:
    """Check that each assistant message's last character is in its turn, and in no other."""
    speaking = [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and (message.get("content") or "").strip()
    ]
    if len(ends) == len(speaking):
        end_of = dict(zip(speaking, ends, strict=True))
        expected = [turn for turn in turns if turn.message in end_of]
        if all(turn.start < end_of[turn.message] <= turn.eot for turn in expected):
            return
    raise RejectLineError(
        "the chat template leaves out or moves the content of an assistant message, so it cannot "
        "be told which tokens are its"
    )


def _is_written_by(template: str, token: str) -> bool:
    """Whether an added token looks like markup and stands in the template's text."""
    has_shape = (token[0], token[-1]) in {("<", ">"), ("[", "]")} and not any(
        map(str.isspace, token)
    )
    return has_shape and token in template
