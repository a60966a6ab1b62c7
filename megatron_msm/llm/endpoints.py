"""What a user writes about a language model: which server, which model, how fast, at what price."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.formats.json_types import JsonObject


class Price(Section):
    """What a million tokens cost in US dollars. Zero is a price: that of a server of one's own."""

    input: float = Field(ge=0)
    """For the prompt."""
    output: float = Field(ge=0)
    """For the reply, hidden reasoning included."""
    cached_input: float | None = Field(default=None, ge=0)
    """For a prompt read from the server's cache; left out: the price of `input`."""


class _Server(Section):
    model: str
    """The model, as the server names it."""
    base_url: str | None = None
    """The server's address, such as http://localhost:8000/v1; left out: the provider's own."""
    concurrency: PositiveInt = 32
    """Calls in flight at most. A server that asks for fewer gets fewer."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds an attempt may take."""
    max_attempts: PositiveInt = 6
    """Attempts of a call before it counts as failed; a later run tries again."""
    batch: bool = False
    """Whether calls go through the provider's batch API: half the price, within a day. A run that
    is killed meanwhile finds its batches again."""
    price: Price | None = None
    """Left out: the published price of this model, if there is one. With `batch`, half of it is
    counted."""
    extra_body: JsonObject = Field(default_factory=dict)
    """Further fields of the request, as the server documents them."""


class OpenAIEndpoint(_Server):
    """A server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp and others."""

    kind: Literal["openai"] = "openai"
    """Says that this is such a server."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A server without keys needs none."""
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the server is told to answer in JSON; replies are checked against the schema anyway."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the limit of a reply; OpenAI's reasoning models know only the
    second."""


class AnthropicEndpoint(_Server):
    """Anthropic's messages. The system turn is marked for the provider's cache."""

    kind: Literal["anthropic"] = "anthropic"
    """Says that this is Anthropic."""
    api_key_env: str = "ANTHROPIC_API_KEY"
    """Environment variable that holds the key."""
    structured: Literal["json_schema", "none"] = "json_schema"
    """How the model is told to answer in JSON; replies are checked against the schema anyway."""


class OfflineEndpoint(Section):
    """A file instead of a server."""

    path: Path

    @property
    def concurrency(self) -> int:
        """Calls in flight at most."""
        return 1

    @property
    def max_attempts(self) -> int:
        """A file does not change its mind."""
        return 1


class JournalEndpoint(OfflineEndpoint):
    """Recorded replies. A call that the recording does not hold fails."""

    kind: Literal["journal"]
    """Says that this is a recording."""
    path: Path
    """The recording: lines of {"call": address, "index": 0, "reply": {"text": ...}}, as the
    journal of a run has them, or as somebody wrote them."""
    model: str = "recorded"
    """The name under which rows say who wrote them."""


class GrammarEndpoint(OfflineEndpoint):
    """Texts composed from templates, the same for one seed. It writes and cannot judge."""

    kind: Literal["grammar"]
    """Says that this is a grammar."""
    path: Path
    """The grammar's YAML file."""
    seed: int = 1
    """Another seed composes other texts."""
    model: str = "grammar"
    """The name under which rows say who wrote them; a hash of the grammar and the seed is added,
    so that an edited grammar answers anew."""


Endpoint = Annotated[
    OpenAIEndpoint | AnthropicEndpoint | JournalEndpoint, Field(discriminator="kind")
]
"""What answers any question."""
WriterEndpoint = Annotated[
    OpenAIEndpoint | AnthropicEndpoint | JournalEndpoint | GrammarEndpoint,
    Field(discriminator="kind"),
]
"""What writes for `msm generate`."""
