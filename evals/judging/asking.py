"""Asking a judge until its verdict can be read, a few times at most."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from inspect_ai.model import Model, get_model
from inspect_ai.solver import TaskState

from evals.judging.journalled_api import JournalledAPI, judge_turn
from megatron_msm.formats.json_types import JsonObject

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
    def details(self) -> JsonObject:
        """What a row keeps of it."""
        return {"judge": self.replies[-1], "judge_attempts": len(self.replies)}


def the_judge() -> Model:
    """Return the judge of the running evaluation.

    Raises:
        ValueError: By Inspect, where no judge was named: the judged model never judges itself.
    """
    return get_model(role=JUDGE_ROLE, required=True)


def check_judge() -> None:
    """Find out before a reply is written that no judge would read it.

    Raises:
        MsmError: What ended the judge: a reached budget, a key that is refused.
    """
    api = the_judge().api
    if isinstance(api, JournalledAPI):
        api.endpoint.check()


async def ask_judge(
    question: str, read: Callable[[str], Verdict | None], *, about: TaskState, attempts: int
) -> Judgement[Verdict]:
    """Ask the judge, and again while its reply cannot be read.

    Args:
        question: One user turn.
        read: Returns the verdict of a reply, or None.
        about: Whose reply is judged.
        attempts: How often at most.
    """
    judge, address = the_judge(), f"{about.sample_id}#{about.epoch}"
    replies: list[str] = []
    while len(replies) < attempts:
        turn = judge_turn(question, address=address, attempt=len(replies))
        output = await judge.generate([turn])
        replies.append(output.completion)
        verdict = read(output.completion)
        if verdict is not None:
            return Judgement(verdict, tuple(replies))
    return Judgement(None, tuple(replies))
