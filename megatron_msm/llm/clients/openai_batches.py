"""OpenAI's batches: a file of requests is uploaded, a batch made of it, files of results read."""

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import openai
import orjson
from openai.types import Batch
from openai.types.chat import ChatCompletion

from megatron_msm.llm.batch_client import BatchResult, BatchState, Candidate
from megatron_msm.llm.batch_records import BatchRecord
from megatron_msm.llm.call import Call, CallError, Reply
from megatron_msm.llm.clients.openai_client import body_of, new_sdk, reply_of_completion
from megatron_msm.llm.clients.sdk_errors import BROKEN_ANSWER, call_error, status_error
from megatron_msm.llm.endpoints import OpenAIEndpoint

_ENDED = ("completed", "expired", "cancelled", "failed")
_URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"


class OpenAIBatches:
    """Sends batches to one server: see `BatchClient`.

    Args:
        endpoint: Which, and for which model.

    Raises:
        ConfigError: Its key is missing.
    """

    def __init__(self, endpoint: OpenAIEndpoint) -> None:
        self._endpoint = endpoint
        self._sdk = new_sdk(endpoint)

    async def prepare(self, calls: Sequence[Call]) -> str:
        """Upload the requests and return the file's id."""
        lines = [
            orjson.dumps(
                {
                    "custom_id": call.key,
                    "method": "POST",
                    "url": _URL,
                    "body": body_of(call, self._endpoint),
                },
                option=orjson.OPT_APPEND_NEWLINE,
            )
            for call in calls
        ]
        try:
            file = await self._sdk.files.create(
                file=("batch.jsonl", b"".join(lines)), purpose="batch"
            )
        except (openai.APIError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None
        return _field(file, "id")

    async def create(self, calls: Sequence[Call], prepared: str) -> str:
        """Make a batch of an uploaded file and return its id."""
        try:
            batch = await self._sdk.batches.create(
                completion_window="24h", endpoint=_URL, input_file_id=prepared
            )
        except (openai.APIError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None
        return _field(batch, "id")

    async def candidates(self, record: BatchRecord) -> list[Candidate]:
        """Return the batch that was made of the record's file: each file is of one batch."""
        try:
            async for batch in self._sdk.batches.list(limit=100):
                if batch.input_file_id == record.prepared:
                    return [Candidate(batch.id, is_certain=True)]
        except (openai.APIError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None
        return []

    async def state(self, batch_id: str) -> BatchState:
        """Return how far a batch is."""
        batch = await self._batch(batch_id)
        problem = None
        if batch.status == "failed":
            faults = (batch.errors.data if batch.errors else None) or []
            problem = "; ".join(f"{fault.message}" for fault in faults[:3]) or "refused"
        if batch.status == "cancelled":
            problem = "cancelled at the provider"
        return BatchState(is_ended=batch.status in _ENDED, problem=problem)

    async def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """Yield the lines of the files of results and of errors."""
        batch = await self._batch(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            try:
                content = (await self._sdk.files.content(file_id)).content
            except (openai.APIError, *BROKEN_ANSWER) as error:
                raise self._error(error) from None
            for line in content.splitlines():
                yield _result(line)

    async def close(self) -> None:
        """Give connections back."""
        await self._sdk.close()

    async def _batch(self, batch_id: str) -> Batch:
        try:
            batch = await self._sdk.batches.retrieve(batch_id)
        except (openai.APIError, *BROKEN_ANSWER) as error:
            raise self._error(error) from None
        _field(batch, "status")
        return batch

    def _error(self, error: Exception) -> CallError:
        return call_error(error, sdk=openai, key=self._sdk.api_key)


def _field(given: object, name: str) -> str:
    value = getattr(given, name, None)
    if not isinstance(value, str):
        raise CallError(f"the server's answer has no {name}", outcome="retry")
    return value


def _result(line: bytes) -> BatchResult:
    try:
        row = orjson.loads(line)
        key, response, error = row["custom_id"], row.get("response"), row.get("error")
    except (orjson.JSONDecodeError, KeyError, TypeError) as problem:
        raise CallError(f"a line of the results is broken: {problem}", outcome="retry") from None
    return BatchResult(key, _outcome(response, error))


def _outcome(response: object, error: object) -> Reply | CallError:
    if isinstance(error, dict):
        return CallError(f"{error.get('code')}: {error.get('message')}", outcome="retry")
    if not isinstance(response, dict) or not isinstance(response.get("body"), dict):
        return CallError("a result without a response", outcome="retry")
    body, status = response["body"], int(response.get("status_code") or 0)
    if status != 200:
        fault = body.get("error")
        said = fault.get("message") if isinstance(fault, dict) else body
        return status_error(status, f"{said}", {})
    try:
        return reply_of_completion(ChatCompletion.construct(None, **body))
    except CallError as problem:
        return problem
