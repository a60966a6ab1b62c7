"""Servers that speak OpenAI's chat completions: vLLM, SGLang, `transformers serve` and others."""

import os
from urllib.parse import urlsplit

from inspect_ai.model import GenerateConfig, Model, get_model

from megatron_msm.errors import ConfigError

SERVER_KEY_ENV = "MSM_SERVER_API_KEY"
"""Environment variable with the key of the server that has the judged model. A name of its own:
the key of a provider is never sent to another address."""


def server_key(variable: str, base_url: str) -> str:
    """Return the key for a server; servers of one's own take any.

    Raises:
        ConfigError: `base_url` is no address.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{base_url!r} is no server's address. Write it as http://HOST:PORT/v1.")
    return os.environ.get(variable) or "none"


def server_model(name: str, base_url: str, key: str, config: GenerateConfig) -> Model:
    """Return the model called `name` at a server."""
    return get_model(
        f"openai-api/msm/{name}", base_url=base_url, api_key=key, config=config, memoize=False
    )
