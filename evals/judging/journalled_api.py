"""An endpoint of `megatron_msm/llm` as a model of Inspect's, so that its logs show every call.

Inspect makes models by name: an opened endpoint is found under a name of its own.
"""

from inspect_ai.model import (
    ChatMessage,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    StopReason,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from evals.models.inspect_apis import output_of, usage_of
from megatron_msm.llm.call import Call, Finish
from megatron_msm.llm.journalled import JournalledEndpoint

_STOP_REASONS: dict[Finish, StopReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "refusal": "content_filter",
    "other": "unknown",
}
_OPENED: dict[str, JournalledEndpoint] = {}


def model_of(endpoint: JournalledEndpoint, config: GenerateConfig) -> Model:
    """Return an opened endpoint as a model."""
    _OPENED[endpoint.settings.model] = endpoint
    return get_model(f"msm-endpoint/{endpoint.settings.model}", config=config, memoize=False)


def judge_turn(question: str, *, address: str, attempt: int) -> ChatMessageUser:
    """Return a question with what names its reply in a journal.

    Args:
        question: The text.
        address: Names what is judged: two replies with one text get two verdicts.
        attempt: Which time this is asked.
    """
    return ChatMessageUser(content=question, metadata={"address": address, "attempt": attempt})


class JournalledAPI(ModelAPI):
    """An endpoint that has been opened."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
    ) -> None:
        """Find the endpoint that was opened last under this name."""
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.endpoint = _OPENED[model_name]

    def max_connections(self) -> int:
        """Return how many requests may wait."""
        return self.endpoint.settings.concurrency

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one question of `judge_turn`."""
        (turn,) = input
        named = turn.metadata or {}
        call = Call(
            address=str(named["address"]),
            step="",
            prompt=turn.text,
            temperature=config.temperature,
            max_tokens=config.max_tokens or 2048,
            index=int(named["attempt"]),
        )
        reply = await self.endpoint.ask(call)
        usage = usage_of(reply.usage.input_tokens, reply.usage.output_tokens)
        return output_of(self.model_name, reply.text, _STOP_REASONS[reply.finish], usage)


@modelapi(name="msm-endpoint")
def msm_endpoint() -> type[ModelAPI]:
    """Register the provider."""
    return JournalledAPI
