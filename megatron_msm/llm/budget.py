"""Limits of what a run may spend, over all of its runs together."""

from pydantic import Field

from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.errors import AGAIN_STATUS, MsmError
from megatron_msm.llm.journal import Spent


class BudgetReachedError(MsmError):
    """A limit of spending is reached; what was paid is journalled."""

    exit_status = AGAIN_STATUS


class Budget(Section):
    """What may be spent. Calls in flight when a limit is reached are still finished and kept."""

    max_cost_usd: float | None = Field(default=None, gt=0)
    """US dollars, over all runs with this journal."""
    max_tokens: PositiveInt | None = None
    """Tokens of prompts and replies, over all runs with this journal."""

    def check(self, spent: Spent) -> None:
        """Check whether another call may be made.

        Raises:
            BudgetReachedError: A limit is reached, or a cost limit is set and a price unknown.
        """
        if self.max_cost_usd is not None:
            if spent.unpriced_calls:
                raise BudgetReachedError(
                    f"max_cost_usd is {self.max_cost_usd:g}, and {spent.unpriced_calls:,} calls "
                    "have no known price. Give the endpoint's `price`, or limit max_tokens."
                )
            if spent.cost_usd >= self.max_cost_usd:
                raise BudgetReachedError(
                    f"max_cost_usd of {self.max_cost_usd:g} is reached: {spent.cost_usd:.2f} spent "
                    f"in {spent.calls:,} calls. Raise it and run the same command to go on."
                )
        tokens = spent.input_tokens + spent.output_tokens
        if self.max_tokens is not None and tokens >= self.max_tokens:
            raise BudgetReachedError(
                f"max_tokens of {self.max_tokens:,} is reached: {tokens:,} used in "
                f"{spent.calls:,} calls. Raise it and run the same command to go on."
            )
