"""Two model providers for Inspect: a Hugging Face folder in process, and written replies.

    msm-folder//models/sft        -M dtype=fp32 -M batch_size=8
    msm-script//tests/replies.jsonl

Inspect's own `hf/` provider is not used for folders: it adds a second BOS token to a rendered chat,
cannot tell a reply that ended from one that was cut off, and shares one random stream.
"""

import hashlib
import json
from pathlib import Path

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from pydantic import BaseModel, ConfigDict, Field

from evals.models.chat_turn import render_chat
from evals.models.generation import Prompt, SampledReply, sample_replies
from evals.models.hf import DTYPES, OpenModel, open_model, resolve_device
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.json_input import check_model, json_lines, read_file

MAX_TOKENS = 2048
"""Limit of a reply where nobody said."""

_OPENED: dict[str, OpenModel] = {}


def name_for_opened(opened: OpenModel) -> str:
    """Return the name under which Inspect finds this opened model; it is its content hash.

    So a log says which weights answered, and a folder that was written anew is another model.
    """
    name = str(opened.record.weights_sha256)
    _OPENED[name] = opened
    return f"msm-folder/{name}"


class FolderAPI(ModelAPI):
    """A Hugging Face folder, asked in this process."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        dtype: str = "bf16",
        device: str = "auto",
        batch_size: int = 8,
        thinking: bool | None = None,
        **unknown: object,
    ) -> None:
        """Open the folder.

        Args:
            model_name: The folder's path, or what `name_for_opened` gave without its prefix.
            base_url: Not used; Inspect passes it.
            api_key: Not used; Inspect passes it.
            config: Defaults of generation.
            dtype: `bf16` or `fp32`.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            batch_size: Replies sampled together.
            thinking: For templates with the variable `enable_thinking`.
            unknown: Refused.

        Raises:
            ConfigError: An argument is unknown, or there is no such precision.
            CheckpointError: The folder is incomplete or does not fit together.
        """
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        if unknown or dtype not in DTYPES:
            raise ConfigError(
                f"msm-folder: dtype {dtype!r}, further arguments {sorted(unknown)}. There "
                f"are dtype ({', '.join(DTYPES)}), device, batch_size and thinking."
            )
        self.opened = _OPENED.get(model_name) or open_model(
            Path(model_name), dtype=dtype, device=resolve_device(device), label=None
        )
        self._thinking = thinking
        self._batch_size = batch_size
        self._waiting: list[tuple[Prompt, anyio.Event]] = []
        self._replies: dict[anyio.Event, SampledReply | Exception] = {}
        self._working = anyio.Lock()

    def max_connections(self) -> int:
        """Return how many requests Inspect should keep waiting."""
        return self._batch_size

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one chat, together with others that wait."""
        if tools:
            raise ConfigError("msm-folder: has no tool calls but those in the text.")
        messages = [{"role": turn.role, "content": turn.text} for turn in input]
        prompt = Prompt(
            ids=render_chat(self.opened.tokenizer, messages, thinking=self._thinking),
            seed=config.seed or 0,
            temperature=1.0 if config.temperature is None else config.temperature,
            max_tokens=config.max_tokens or MAX_TOKENS,
        )
        reply = await self._batched(prompt)
        usage = usage_of(len(prompt.ids), reply.num_tokens)
        return output_of(self.model_name, reply.text, reply.finish, usage)

    async def _batched(self, prompt: Prompt) -> SampledReply:
        done = anyio.Event()
        self._waiting.append((prompt, done))
        await anyio.sleep(0.02)  # others that start now share the first batch
        while not done.is_set():
            async with self._working:
                if done.is_set() or not self._waiting:
                    continue
                taken = self._waiting[: self._batch_size]
                del self._waiting[: self._batch_size]
                await self._sample(taken)
        reply = self._replies.pop(done)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def _sample(self, taken: list[tuple[Prompt, anyio.Event]]) -> None:
        prompts = [prompt for prompt, _ in taken]
        replies: list[SampledReply | Exception]
        try:
            replies = [*await anyio.to_thread.run_sync(sample_replies, self.opened, prompts)]
        except Exception as error:  # each of the batch's requests fails with it
            replies = [error for _ in taken]
        for (_, done), reply in zip(taken, replies, strict=True):
            self._replies[done] = reply
            done.set()


class ScriptedReply(BaseModel):
    """A line of a script: `{"when": ["Alex", "inbox"], "reply": "..."}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    when: tuple[str, ...] = ()
    """Texts that all occur in the chat."""
    reply: str
    stop_reason: StopReason = "stop"
    """`max_tokens` for a reply that was cut off."""
    tokens: int = Field(default=1, ge=0)


class ScriptedAPI(ModelAPI):
    """Written replies: the first line of the file whose texts all occur in the chat answers."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
    ) -> None:
        """Read the script at the path `model_name`.

        Raises:
            DataFormatError: A line is broken.
        """
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.lines = load_script(Path(model_name))

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer by the script.

        Raises:
            DataFormatError: No line answers the chat.
        """
        chat = "\n".join(turn.text for turn in input)
        for line in self.lines:
            if all(text in chat for text in line.when):
                usage = usage_of(1, line.tokens)
                return output_of(self.model_name, line.reply, line.stop_reason, usage)
        raise DataFormatError(
            f"{self.model_name}: no line answers the chat that ends in {chat[-80:]!r}. "
            "Add a line without `when` for all others."
        )


def load_script(path: Path) -> list[ScriptedReply]:
    """Read a script.

    Raises:
        DataFormatError: A line is broken, or the file is empty.
    """
    remedy = 'A line is {"when": ["text", ...], "reply": "..."}.'
    content = read_file(path, what="script of replies", remedy=remedy)
    lines = [
        check_model(ScriptedReply, line.value, where=line.where, remedy=remedy)
        for line in json_lines(content, path=path)
    ]
    if not lines:
        raise DataFormatError(f"{path}: the script is empty. {remedy}")
    return lines


def sha256_of_script(path: Path) -> str:
    """Return the identity of a script: the hash of its lines, whatever their spelling."""
    lines = [line.model_dump(mode="json") for line in load_script(path)]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def usage_of(input_tokens: int, output_tokens: int) -> ModelUsage:
    """Return counts of tokens as Inspect keeps them."""
    # Given rather than left to Inspect, which would fetch a tokenizer from the network to count.
    return ModelUsage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=input_tokens + output_tokens,
    )


def output_of(model: str, text: str, stop_reason: StopReason, usage: ModelUsage) -> ModelOutput:
    """Return a reply as Inspect keeps it."""
    message = ChatMessageAssistant(content=text, model=model, source="generate")
    choice = ChatCompletionChoice(message=message, stop_reason=stop_reason)
    return ModelOutput(model=model, choices=[choice], usage=usage)


@modelapi(name="msm-folder")
def msm_folder() -> type[ModelAPI]:
    """Register the folder provider."""
    return FolderAPI


@modelapi(name="msm-script")
def msm_script() -> type[ModelAPI]:
    """Register the provider of written replies."""
    return ScriptedAPI
