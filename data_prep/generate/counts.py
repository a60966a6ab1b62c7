"""What happened to the calls and rows of a generation run, so that nothing is lost uncounted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from megatron_msm.llm.call import Answer, Finish

_OUTCOMES: dict[Finish, str] = {
    "length": "cut off at max_tokens",
    "refusal": "declined by the model",
    "other": "ended for another reason",
}


class Shortfall(NamedTuple):
    """A step that brought fewer items than were asked for."""

    step: str
    where: str
    wanted: int
    got: int


@dataclass
class GenerationCounts:
    """Counts of a run; a rerun from the journal gives the same."""

    replies: dict[str, Counter[str]] = field(default_factory=dict)
    """Outcomes of calls by step."""
    shortfalls: list[Shortfall] = field(default_factory=list)
    rows: dict[str, Counter[str]] = field(default_factory=dict)
    """By corpus: how many rows were kept, and how many each gate refused."""
    agreement: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By judge: (rows judged twice, of these with one verdict)."""

    def add_reply(self, answer: Answer) -> None:
        """Count what came back for a call."""
        counter = self.replies.setdefault(answer.call.step, Counter())
        counter["calls"] += 1
        counter[self.outcome(answer)] += 1

    def outcome(self, answer: Answer) -> str:
        """Return what a call's answer counts as; `answered` for a whole reply."""
        if answer.reply is None:
            return "rejected by the server"
        return _OUTCOMES.get(answer.reply.finish, "answered")

    def add(self, step: str, what: str) -> None:
        """Count something about a step's replies."""
        self.replies.setdefault(step, Counter())[what] += 1

    def add_agreement(self, judge: str, *, rows: int, same: int) -> None:
        """Count rows judged twice; a corpus that is filled up is judged in several goes."""
        rows_before, same_before = self.agreement.get(judge, (0, 0))
        self.agreement[judge] = (rows_before + rows, same_before + same)

    def as_json(self) -> dict[str, Any]:
        """Return what the summary holds."""
        return {
            "replies": {step: dict(sorted(c.items())) for step, c in sorted(self.replies.items())},
            "shortfalls": [shortfall._asdict() for shortfall in self.shortfalls],
            "rows": {corpus: dict(c) for corpus, c in sorted(self.rows.items())},
            "judged_twice": {
                name: {"rows": rows, "same_verdict": same}
                for name, (rows, same) in sorted(self.agreement.items())
            },
        }
