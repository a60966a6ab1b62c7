"""Anthropic's messages through the official SDK; retries are the pool's."""

from typing import cast

import anthropic
from anthropic.types import ContentBlock, Message
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming

from megatron_msm.formats.json_types import JsonObject
from megatron_msm.llm.call import Call, CallError, Finish, Reply, Usage
from megatron_msm.llm.clients.keys import api_key
from megatron_msm.llm.clients.sdk_errors import BROKEN_ANSWER, call_error
from megatron_msm.llm.endpoints import AnthropicEndpoint

_PROVIDER = "https://api.anthropic.com"
_FINISH: dict[str | None, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class AnthropicClient:
    """Asks one server.

    Args:
        endpoint: Which, and for which model.

    Raises:
        ConfigError: Its key is missing.
    """

    def __init__(self, endpoint: AnthropicEndpoint) -> None:
        self._endpoint = endpoint
        self._sdk = new_sdk(endpoint)

    async def complete(self, call: Call) -> Reply:
        """Answer one call, by one attempt.

        Raises:
            CallError: There is no reply.
        """
        try:
            message = await self._sdk.messages.create(
                **_request(call, self._endpoint), extra_body=_further(call, self._endpoint) or None
            )
        except (anthropic.APIError, *BROKEN_ANSWER) as error:
            raise call_error(error, sdk=anthropic, key=self._sdk.api_key or "") from None
        return reply_of_message(message)

    async def close(self) -> None:
        """Give connections back."""
        await self._sdk.close()


def new_sdk(endpoint: AnthropicEndpoint) -> anthropic.AsyncAnthropic:
    """Return the SDK's client for an endpoint.

    Raises:
        ConfigError: Its key is missing.
    """
    return anthropic.AsyncAnthropic(
        api_key=api_key(endpoint.api_key_env, base_url=endpoint.base_url),
        # Never left to the SDK, which would take it from an environment variable.
        base_url=endpoint.base_url or _PROVIDER,
        timeout=endpoint.timeout_s,
        max_retries=0,
    )


def body_of(call: Call, endpoint: AnthropicEndpoint) -> MessageCreateParamsNonStreaming:
    """Return the body of a call's request."""
    body = {**_request(call, endpoint), **_further(call, endpoint)}
    return cast(MessageCreateParamsNonStreaming, body)  # which knows no further fields


def _request(call: Call, endpoint: AnthropicEndpoint) -> MessageCreateParamsNonStreaming:
    request: MessageCreateParamsNonStreaming = {
        "model": call.model,
        "max_tokens": call.max_tokens,
        "messages": [{"role": "user", "content": call.prompt}],
    }
    if call.system:
        request["system"] = [
            {"type": "text", "text": call.system, "cache_control": {"type": "ephemeral"}}
        ]
    if call.schema is not None and endpoint.structured == "json_schema":
        request["output_config"] = {"format": {"type": "json_schema", "schema": {**call.schema}}}
    return request


def _further(call: Call, endpoint: AnthropicEndpoint) -> JsonObject:
    # The SDK has no argument for the temperature any more; the service still takes one.
    temperature: JsonObject = {} if call.temperature is None else {"temperature": call.temperature}
    return {**temperature, **endpoint.extra_body}


def reply_of_message(message: Message) -> Reply:
    """Return what a message holds.

    Raises:
        CallError: It holds no reply.
    """
    blocks: list[ContentBlock] | None = getattr(message, "content", None)
    if not isinstance(blocks, list):
        raise CallError("the server's answer has no content", outcome="retry")
    text = "".join(block.text for block in blocks if block.type == "text")
    finish = _FINISH.get(message.stop_reason, "other")
    used = message.usage
    written, read = used.cache_creation_input_tokens or 0, used.cache_read_input_tokens or 0
    usage = Usage(
        # The service counts what is read from and written to its cache beside the other input.
        input_tokens=used.input_tokens + written + read,
        output_tokens=used.output_tokens,
        cached_tokens=read,
        cache_write_tokens=written,
    )
    return Reply(text, finish, usage, message.model)
