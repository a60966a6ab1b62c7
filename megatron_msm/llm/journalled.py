"""An endpoint for a caller with an event loop of its own, who asks one call at a time.

`Pool` answers lists of calls and runs its own loop; this has the same journal, budget, pacing and
attempts, for programs such as an evaluation in which calls come up one by one.
"""

import contextlib
from dataclasses import replace
from pathlib import Path

from megatron_msm.errors import MsmError, UnansweredError
from megatron_msm.llm.budget import Budget
from megatron_msm.llm.call import Answer, Call, Reply
from megatron_msm.llm.clients import new_client
from megatron_msm.llm.endpoints import AnthropicEndpoint, JournalEndpoint, OpenAIEndpoint
from megatron_msm.llm.journal import Journal, Spent
from megatron_msm.llm.ledger import Ledger
from megatron_msm.llm.live import LiveLine
from megatron_msm.llm.stopping import Stop


class JournalledEndpoint:
    """An endpoint with its journal."""

    def __init__(
        self,
        endpoint: OpenAIEndpoint | AnthropicEndpoint | JournalEndpoint,
        *,
        journal: Path,
        budget: Budget,
        step: str,
    ) -> None:
        """Open the journal; ask nothing yet.

        Args:
            endpoint: Whom to ask, call by call.
            journal: The file in which replies are kept.
            budget: What may be spent, over all runs with this journal.
            step: Under which this caller's calls are counted.

        Raises:
            ConfigError: The key is missing, or another process has the journal open.
        """
        self.settings = endpoint
        self.ended_by: MsmError | None = None
        """What ended it for all calls: a reached budget, a key that is refused."""
        self._step = step
        self._open = contextlib.ExitStack()
        self._journal = self._open.enter_context(Journal(journal))
        self._ledger = Ledger(self._journal, budget)
        self._line = LiveLine(endpoint, new_client(endpoint), self._ledger)
        self._stop = Stop(lambda: self._ledger.traffic.in_flight)

    @property
    def spent(self) -> Spent:
        """What the calls of this caller have used, earlier runs included."""
        return self._journal.spent.get(self._step, Spent())

    def check(self) -> None:
        """Find out that no further call would be answered, before work is done for one.

        Raises:
            MsmError: What ended it.
        """
        if self.ended_by is not None:
            raise self.ended_by

    async def ask(self, call: Call) -> Reply:
        """Return the reply: the journal's, or a new one.

        Args:
            call: Its `model` and `step` are filled in; its address is one among those of the step.

        Raises:
            BudgetReachedError: A limit of spending is reached.
            ConfigError: The server refuses every call.
            UnansweredError: No attempt brought a reply.
        """
        address = f"{self._step}/{call.address}"
        call = replace(call, model=self.settings.model, step=self._step, address=address)
        answer = self._journal.find(call) or await self._ask(call)
        if answer.reply is None:
            raise UnansweredError(f"{self.settings.model}: {answer.failure}")
        return answer.reply

    def close(self) -> None:
        """Close the journal."""
        self._open.close()

    async def _ask(self, call: Call) -> Answer:
        self.check()
        try:
            return await self._line.ask(call, self._stop)
        except MsmError as error:
            self.ended_by = error
            raise
