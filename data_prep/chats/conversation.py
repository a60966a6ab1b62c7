"""A rendered conversation while its turns are looked for: its text, and what stands where in it."""

import bisect
import re
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.chats.marks import ControlPattern, Marks
from data_prep.reading.messages import Message
from megatron_msm.formats.json_types import JsonObject

Span = tuple[int, int]


class Turn(NamedTuple):
    """Character positions of one assistant turn in the rendered text."""

    message: int
    start: int
    eot: int
    """Where the end-of-turn token begins."""
    eot_end: int


@dataclass(frozen=True)
class EndOfTurn:
    """Which tokens may end a turn."""

    stops: frozenset[str] = frozenset()
    """Those on which generation stops; empty: not known."""
    appended: str | None = None
    """Written behind a turn that the template itself does not end."""
    usual: str | None = None
    """What a plain turn of the template ends with: the measure where no stops are known."""

    def is_wrong(self, token: str) -> bool:
        """Whether a turn that ends with `token` is one on whose end generation would go on."""
        if self.stops:
            return token not in self.stops
        return self.usual is not None and token != self.usual


@dataclass
class Conversation:
    """A rendered conversation while its turns are looked for. Positions are those in `text`."""

    messages: list[Message]
    tools: list[JsonObject] | None
    text: str
    control: list[Span]
    content_ends: list[int]
    """Behind the last visible character of each of the assistant's contents."""

    def append(self, token: str) -> Span:
        """Write a token behind the text."""
        start = len(self.text)
        self.text += token
        self.control.append((start, len(self.text)))
        return self.control[-1]


def positions(marked: str, marks: Marks, pattern: ControlPattern) -> tuple[list[Span], list[int]]:
    """Return where control tokens are, and where the assistant's contents end."""
    offsets = [match.start() for match in re.finditer(f"[{''.join(marks)}]", marked)]

    def unmarked(offset: int) -> int:
        return offset - bisect.bisect_left(offsets, offset)

    control = [(unmarked(start), unmarked(end)) for start, end in pattern.find(marked)]
    return control, [unmarked(offset) for offset in offsets if marked[offset] == marks.end]
