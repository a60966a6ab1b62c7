"""Conversations that are longer than a row may be: cut at a turn, or split at turns.

    system  user  assistant  user  assistant  user  assistant
    [------------ truncate ---------------]                       the longest beginning that fits
    [----------- split, first row --------]
    [system] +                                [user  assistant]   split, second row

A message is never cut. A row begins with a user message, after the system messages, and ends with
an assistant turn that carries loss.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from data_prep.reading.messages import Message
from data_prep.reading.records import RejectLineError

Overlong = Literal["reject", "drop", "truncate", "split"]
Part = tuple[int, ...]
"""The indices of the messages that make a row."""
Fits = Callable[[Part], bool]
_SYSTEM_ROLES = ("system", "developer")


def truncated(trained: Sequence[bool], fits: Fits) -> Part:
    """Return the longest beginning that fits and ends with a turn that carries loss.

    Raises:
        RejectLineError: Not even the shortest one fits.
    """
    best: Part | None = None
    for index, carries_loss in enumerate(trained):
        if carries_loss:
            part = tuple(range(index + 1))
            if not fits(part):
                break
            best = part
    if best is None:
        raise RejectLineError("longer than --max-length already at its first turn with loss")
    return best


def split(messages: Sequence[Message], trained: Sequence[bool], fits: Fits) -> list[Part]:
    """Return rows that together hold every exchange with loss, each as many as fit.

    Raises:
        RejectLineError: One exchange alone, with the system messages, does not fit.
    """
    head = _system_messages(messages)
    parts: list[Part] = []
    current: Part = ()
    for exchange in _exchanges(messages, len(head)):
        if not any(trained[index] for index in (*current, *exchange)):
            current += exchange
            continue
        longer = (*current, *exchange)
        if fits(head + longer):
            current = longer
            continue
        if any(trained[index] for index in current):
            parts.append(head + current)
        if not any(trained[index] for index in exchange):
            current = exchange
            continue
        if not fits(head + exchange):
            raise RejectLineError(
                f"longer than --max-length in the single exchange from messages[{exchange[0]}] on"
            )
        current = exchange
    if any(trained[index] for index in current):
        parts.append(head + current)
    return [_until_loss(part, trained) for part in parts]


def _system_messages(messages: Sequence[Message]) -> Part:
    count = 0
    while count < len(messages) and messages[count]["role"] in _SYSTEM_ROLES:
        count += 1
    return tuple(range(count))


def _exchanges(messages: Sequence[Message], first: int) -> list[Part]:
    """Return runs of messages, each of which begins with the user's after somebody else's."""
    runs: list[list[int]] = []
    for index in range(first, len(messages)):
        is_user = messages[index]["role"] == "user"
        if not runs or (is_user and messages[index - 1]["role"] != "user"):
            runs.append([])
        runs[-1].append(index)
    return [tuple(run) for run in runs]


def _until_loss(part: Part, trained: Sequence[bool]) -> Part:
    """Leave out what follows the last turn with loss."""
    last = max(end for end, index in enumerate(part) if trained[index])
    return part[: last + 1]
