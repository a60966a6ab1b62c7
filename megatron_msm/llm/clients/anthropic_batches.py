"""Anthropic's message batches."""

from collections.abc import AsyncIterator, Sequence

import anthropic
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from anthropic.types.messages.batch_create_params import Request

from megatron_msm.llm.batch_client import BatchResult, BatchState, Candidate
from megatron_msm.llm.batch_records import BatchRecord
from megatron_msm.llm.call import Call, CallError, Reply
from megatron_msm.llm.clients.anthropic_client import body_of, new_sdk, reply_of_message
from megatron_msm.llm.clients.keys import without_keys
from megatron_msm.llm.clients.sdk_errors import BROKEN_ANSWER, call_error
from megatron_msm.llm.endpoints import AnthropicEndpoint

_CLOCKS_APART_S = 86_400.0
"""How much earlier by the provider's clock than by ours a batch may have been made."""


class AnthropicBatches:
    """Sends batches to one server: see `BatchClient`.

    Args:
        endpoint: Which, and for which model.

    Raises:
        ConfigError: Its key is missing.
    """

    def __init__(self, endpoint: AnthropicEndpoint) -> None:
        self._endpoint = endpoint
        self._sdk = new_sdk(endpoint)

    async def prepare(self, calls: Sequence[Call]) -> str:
        """Nothing to prepare."""
        return ""

    async def create(self, calls: Sequence[Call], prepared: str) -> str:
        """Make a batch and return its id."""
        requests: list[Request] = [
            {"custom_id": call.key, "params": body_of(call, self._endpoint)} for call in calls
        ]
        try:
            batch = await self._sdk.messages.batches.create(requests=requests)
        except (anthropic.APIError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None
        return _checked(batch).id

    async def candidates(self, record: BatchRecord) -> list[Candidate]:
        """Return batches of as many calls made since: only results show the calls' ids."""
        found = []
        try:
            async for batch in self._sdk.messages.batches.list(limit=100):
                if batch.created_at.timestamp() < record.unix_time_s - _CLOCKS_APART_S:
                    break
                counts = batch.request_counts
                ended = counts.succeeded + counts.errored + counts.canceled + counts.expired
                if counts.processing + ended == record.calls:
                    found.append(Candidate(batch.id, is_certain=False))
        except (anthropic.APIError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None
        return found

    async def state(self, batch_id: str) -> BatchState:
        """Return how far a batch is."""
        try:
            batch = _checked(await self._sdk.messages.batches.retrieve(batch_id))
        except (anthropic.APIError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None
        is_ended = batch.processing_status == "ended"
        is_cancelled = is_ended and batch.cancel_initiated_at is not None
        return BatchState(is_ended, "cancelled at the provider" if is_cancelled else None)

    async def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """Yield what came of each call."""
        try:
            async for line in await self._sdk.messages.batches.results(batch_id):
                yield BatchResult(line.custom_id, self._outcome(line))
        except (anthropic.AnthropicError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None

    async def close(self) -> None:
        """Give connections back."""
        await self._sdk.close()

    def _outcome(self, line: MessageBatchIndividualResponse) -> Reply | CallError:
        result = line.result
        if result.type == "succeeded":
            try:
                return reply_of_message(result.message)
            except CallError as problem:
                return problem
        if result.type == "errored":
            fault = result.error.error
            is_refused = fault.type == "invalid_request_error"
            said = without_keys(f"{fault.type}: {fault.message}", self._sdk.api_key or "")
            return CallError(said, outcome="rejected" if is_refused else "retry")
        return CallError(f"the batch ended before its turn ({result.type})", outcome="retry")

    def _error(self, error: Exception) -> CallError:
        return call_error(error, sdk=anthropic, key=self._sdk.api_key or "")


def _checked(batch: MessageBatch) -> MessageBatch:
    if not isinstance(getattr(batch, "id", None), str) or not hasattr(batch, "processing_status"):
        raise CallError("the server's answer is no batch", outcome="retry")
    return batch
