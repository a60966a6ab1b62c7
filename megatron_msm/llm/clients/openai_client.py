"""OpenAI's chat completions through the official SDK; retries are the pool's."""

from typing import cast

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from openai.types.chat.chat_completion import Choice
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    ResponseFormat,
)
from openai.types.completion_usage import CompletionUsage

from megatron_msm.formats.json_types import JsonObject
from megatron_msm.llm.call import Call, CallError, Finish, Reply, Usage
from megatron_msm.llm.clients.keys import api_key
from megatron_msm.llm.clients.sdk_errors import BROKEN_ANSWER, call_error
from megatron_msm.llm.endpoints import OpenAIEndpoint

_PROVIDER = "https://api.openai.com/v1"
_FINISH: dict[str | None, Finish] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "refusal",
}


class OpenAIClient:
    """Asks one server.

    Args:
        endpoint: Which, and for which model.

    Raises:
        ConfigError: Its key is missing.
    """

    def __init__(self, endpoint: OpenAIEndpoint) -> None:
        self._endpoint = endpoint
        self._sdk = new_sdk(endpoint)

    async def complete(self, call: Call) -> Reply:
        """Answer one call, by one attempt.

        Raises:
            CallError: There is no reply.
        """
        try:
            completion = await self._sdk.chat.completions.create(
                **_request(call, self._endpoint), extra_body=self._endpoint.extra_body or None
            )
        except (openai.APIError, *BROKEN_ANSWER) as error:
            raise call_error(error, sdk=openai, key=self._sdk.api_key) from None
        return reply_of_completion(completion)

    async def close(self) -> None:
        """Give connections back."""
        await self._sdk.close()


def new_sdk(endpoint: OpenAIEndpoint) -> openai.AsyncOpenAI:
    """Return the SDK's client for an endpoint.

    Raises:
        ConfigError: Its key is missing.
    """
    return openai.AsyncOpenAI(
        api_key=api_key(endpoint.api_key_env, base_url=endpoint.base_url),
        # Never left to the SDK, which would take it from an environment variable.
        base_url=endpoint.base_url or _PROVIDER,
        timeout=endpoint.timeout_s,
        max_retries=0,
    )


def body_of(call: Call, endpoint: OpenAIEndpoint) -> CompletionCreateParamsNonStreaming:
    """Return the body of a call's request."""
    body = {**_request(call, endpoint), **endpoint.extra_body}
    return cast(CompletionCreateParamsNonStreaming, body)  # which knows no further fields


def _request(call: Call, endpoint: OpenAIEndpoint) -> CompletionCreateParamsNonStreaming:
    messages: list[ChatCompletionMessageParam] = []
    if call.system:
        messages.append({"role": "system", "content": call.system})
    messages.append({"role": "user", "content": call.prompt})
    request: CompletionCreateParamsNonStreaming = {"model": call.model, "messages": messages}
    request[endpoint.max_tokens_field] = call.max_tokens
    if call.temperature is not None:
        request["temperature"] = call.temperature
    if call.schema is not None and endpoint.structured != "none":
        request["response_format"] = _response_format(call.schema, endpoint.structured)
    return request


def _response_format(schema: JsonObject, structured: str) -> ResponseFormat:
    if structured == "json_object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": {**schema}, "strict": True},
    }


def reply_of_completion(completion: ChatCompletion) -> Reply:
    """Return what a completion holds.

    Raises:
        CallError: It holds no reply.
    """
    # A server that is not OpenAI's may leave out what the SDK's types promise.
    choices: list[Choice] | None = getattr(completion, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise CallError("the server's answer has no choices", outcome="retry")
    choice = choices[0]
    refusal = getattr(choice.message, "refusal", None)
    finish: Finish = "refusal" if refusal else _FINISH.get(choice.finish_reason, "other")
    text = choice.message.content or refusal or ""
    return Reply(str(text), finish, _usage(completion.usage), str(completion.model or ""))


def _usage(usage: CompletionUsage | None) -> Usage:
    if usage is None:
        return Usage()
    prompt, output = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_tokens=(prompt.cached_tokens or 0) if prompt else 0,
        reasoning_tokens=(output.reasoning_tokens or 0) if output else 0,
    )
