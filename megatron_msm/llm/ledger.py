"""What comes back from servers, kept: the journal's line, the cost, the counts, the budget."""

from dataclasses import dataclass, replace

from megatron_msm.llm.budget import Budget
from megatron_msm.llm.call import Answer, Call, Reply, Usage
from megatron_msm.llm.endpoints import AnthropicEndpoint, OpenAIEndpoint, WriterEndpoint
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.prices import cost_usd

_BYTES_PER_TOKEN = 3
"""A cautious estimate for prompts."""


@dataclass
class Traffic:
    """What a pool has done since it was opened."""

    replayed: int = 0
    """Answered from the journal."""
    paid: int = 0
    """Answered by a server."""
    retried: int = 0
    """Attempts that were repeated."""
    failed: int = 0
    """Calls that no attempt answered; a later run tries them again."""
    in_batches: int = 0
    """Calls of batches that have not ended."""
    in_flight: int = 0
    """Calls that a server has now."""


class Ledger:
    """Where a pool's endpoints hand in what they got.

    Args:
        journal: Where replies are kept.
        budget: What may be spent.
    """

    def __init__(self, journal: Journal, budget: Budget) -> None:
        self.journal = journal
        self.budget = budget
        self.traffic = Traffic()

    def check_budget(self) -> None:
        """Check whether another call may be made.

        Raises:
            BudgetReachedError: It may not.
        """
        self.budget.check(self.journal.total)

    def expected(
        self, call: Call, endpoint: OpenAIEndpoint | AnthropicEndpoint
    ) -> tuple[Usage, float | None]:
        """Return what a call will use: the mean of its step, or before that the most it can."""
        so_far = self.journal.spent.get(call.step)
        if so_far is not None and so_far.calls:
            usage = Usage(so_far.input_tokens // so_far.calls, so_far.output_tokens // so_far.calls)
        else:
            num_bytes = len(call.system.encode()) + len(call.prompt.encode())
            usage = Usage(num_bytes // _BYTES_PER_TOKEN, call.max_tokens)
        return usage, cost_usd(usage, endpoint)

    def keep(
        self,
        call: Call,
        reply: Reply,
        endpoint: WriterEndpoint,
    ) -> Answer:
        """Journal a reply with what it cost.

        Raises:
            JournalWriteError: The disk does not take it.
        """
        # JSON may bring half of a surrogate pair, which no file in UTF-8 can hold.
        text = reply.text.encode("utf-8", "replace").decode("utf-8")
        reply = replace(reply, text=text)
        answer = Answer(call, reply, cost_usd=cost_usd(reply.usage, endpoint))
        self.journal.add(answer)
        self.traffic.paid += 1
        return answer
