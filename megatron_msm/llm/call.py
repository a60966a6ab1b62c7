"""One call to a language model, and what comes back."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from megatron_msm.formats.files import sha256_of_json
from megatron_msm.formats.json_types import JsonData, JsonObject

Finish = Literal["stop", "length", "refusal", "other"]
"""Why a reply ended: by itself, at the limit of tokens, declined by the model or its provider."""


@dataclass(frozen=True)
class Call:
    """What is asked of a model.

    Two calls are the same, and are paid once, if they agree in every field but `step` and `inputs`.
    """

    address: str
    """Names the item, such as `documents/plain/kitchen/kettle/memo/1`: two items with one prompt
    are two calls, so that a corpus never repeats a reply."""
    step: str
    """The step that asks; costs are shown by it."""
    prompt: str
    """The user's turn."""
    system: str = ""
    """The system turn, shared by many calls; empty for none."""
    model: str = ""
    """As the endpoint names it."""
    temperature: float | None = None
    """None: the server's own."""
    max_tokens: int = 4096
    """Tokens of the reply, a model's hidden reasoning included."""
    schema: JsonObject | None = None
    """JSON schema of the reply; None for plain text."""
    index: int = 0
    """Which of several replies to the same question."""
    inputs: object = None
    """What the prompt was made from, for a client that does not read prose. A server never sees
    it, and the prompt holds it all: it is no part of what a call is."""

    @cached_property
    def key(self) -> str:
        """Content hash under which the reply is journalled."""
        asked: list[JsonData] = [self.address, self.index, self.model, self.temperature]
        asked += [self.max_tokens, self.system, self.prompt, self.schema]
        return sha256_of_json(asked)


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, as the server counted them."""

    input_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    output_tokens: int = 0
    """Tokens of the reply, hidden reasoning included."""
    cached_tokens: int = 0
    """Tokens of the prompt that the server read from its cache."""
    cache_write_tokens: int = 0
    """Tokens of the prompt that the server wrote to its cache."""
    reasoning_tokens: int = 0
    """Tokens of the reply that are not shown."""


@dataclass(frozen=True)
class Reply:
    """A model's answer. A refusal or a cut-off reply is an answer too: whoever asked decides."""

    text: str
    finish: Finish
    usage: Usage
    model: str
    """The name that the server gave."""


@dataclass(frozen=True)
class Answer:
    """A call with its reply, or with why there is none."""

    call: Call
    reply: Reply | None
    failure: str | None = None
    """The last error, if no attempt brought a reply."""
    may_pass: bool = False
    """Whether that error may pass by itself, so that a later run can have the reply."""
    cost_usd: float | None = None
    """None where the price is not known."""


class CallError(Exception):
    """An attempt brought no reply.

    Args:
        message: What the server said, or what happened to the connection.
        outcome: `retry` for what may pass by itself, `rejected` for this call alone, `fatal` for
            what will meet every call (a wrong key, an unknown model).
        is_rate_limit: Whether the server asked for fewer calls.
        retry_after_s: How long it asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Literal["retry", "rejected", "fatal"],
        is_rate_limit: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.is_rate_limit = is_rate_limit
        self.retry_after_s = retry_after_s


class Client(Protocol):
    """Something that answers calls."""

    async def complete(self, call: Call) -> Reply:
        """Answer one call, by one attempt.

        Raises:
            CallError: There is no reply.
        """

    async def close(self) -> None:
        """Give connections back."""
