"""Asking a judge until its verdict can be read, a few times at most."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from inspect_ai.model import Model, get_model

Verdict = TypeVar("Verdict")

JUDGE_ROLE = "judge"
"""Inspect's role: `inspect eval ... --model-role judge=PROVIDER/MODEL`."""


@dataclass(frozen=True)
class Judgement(Generic[Verdict]):
    """A verdict, or None with the replies in which none could be read."""

    verdict: Verdict | None
    replies: tuple[str, ...]
    """All that the judge wrote, the last one last."""

    @property
    def details(self) -> dict[str, Any]:
        """What a row keeps of it."""
        return {"judge": self.replies[-1], "judge_attempts": len(self.replies)}


def the_judge() -> Model:
    """Return the judge of the running evaluation.

    Raises:
        ValueError: By Inspect, where no judge was named: the judged model never judges itself.
    """
    return get_model(role=JUDGE_ROLE, required=True)


async def ask_judge(
    judge: Model, question: str, read: Callable[[str], Verdict | None], *, attempts: int
) -> Judgement[Verdict]:
    """Ask a judge, and again while its reply cannot be read.

    Args:
        judge: Who is asked.
        question: One user turn.
        read: Returns the verdict of a reply, or None.
        attempts: How often at most.
    """
    replies: list[str] = []
    while len(replies) < attempts:
        output = await judge.generate(question)
        replies.append(output.completion)
        verdict = read(output.completion)
        if verdict is not None:
            return Judgement(verdict, tuple(replies))
    return Judgement(None, tuple(replies))
