"""What a provider's batch API does, whichever provider it is."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from megatron_msm.llm.batch_records import BatchRecord
from megatron_msm.llm.call import Call, CallError, Reply


@dataclass(frozen=True)
class BatchState:
    """How far a batch is."""

    is_ended: bool
    """Whether its results can be read."""
    problem: str | None = None
    """Why the provider refused or cancelled it as a whole."""


class Candidate(NamedTuple):
    """A batch at the provider that may be one whose id was lost."""

    id: str
    is_certain: bool
    """False: only its results tell."""


class BatchResult(NamedTuple):
    """What came of one call of a batch."""

    key: str
    outcome: Reply | CallError


class BatchClient(Protocol):
    """Sends batches to one provider. Every method raises `CallError` where a request fails."""

    async def prepare(self, calls: Sequence[Call]) -> str:
        """Do what costs nothing and may be done twice; return what `create` needs of it."""

    async def create(self, calls: Sequence[Call], prepared: str) -> str:
        """Make a batch and return its id."""

    async def candidates(self, record: BatchRecord) -> list[Candidate]:
        """Return the batches that may be the one of a record without an id."""

    async def state(self, batch_id: str) -> BatchState:
        """Return how far a batch is."""

    def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """Yield what came of each call of an ended batch, in no particular order."""

    async def close(self) -> None:
        """Give connections back."""
