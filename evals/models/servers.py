"""Servers that speak OpenAI's chat completions: vLLM, SGLang, `transformers serve` and others."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import openai
from inspect_ai.model import GenerateConfig, Model, get_model

from evals.models.chat_turn import render_chat
from evals.models.hf import load_tokenizer
from megatron_msm.errors import CheckpointError, ConfigError, SamplingError

SERVER_KEY_ENV = "MSM_SERVER_API_KEY"
"""Environment variable with the key of the server that has the judged model. A name of its own:
the key of a provider is never sent to another address."""


def server_key(base_url: str) -> str:
    """Return the key for a server of the judged model; servers of one's own take any.

    Raises:
        ConfigError: `base_url` is no address.
    """
    check_address(base_url, where="--server")
    return os.environ.get(SERVER_KEY_ENV) or "none"


def check_address(base_url: str, *, where: str) -> None:
    """Refuse what is no address of a server.

    Args:
        base_url: The address.
        where: Where it was written.

    Raises:
        ConfigError: It has no scheme or no host.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{where}: {base_url!r} is no server's address. Write it as http://HOST:PORT/v1."
        )


def server_model(name: str, base_url: str, key: str, config: GenerateConfig) -> Model:
    """Return the model called `name` at a server."""
    return get_model(
        f"openai-api/msm/{name}", base_url=base_url, api_key=key, config=config, memoize=False
    )


def check_rendering(folder: Path, base_url: str, key: str, *, thinking: bool | None) -> None:
    """Refuse a server that makes other tokens of a chat than the folder's own template.

    It may have been started with another template, or put a second BOS token before the rendered
    chat. All that every server tells is the number of the prompt's tokens, so that is compared.

    Args:
        folder: The model, by whose path the server knows it.
        base_url: The server's address.
        key: Its key.
        thinking: What templates with the variable `enable_thinking` get.

    Raises:
        CheckpointError: The numbers differ.
        SamplingError: The server does not answer, or does not count.
    """
    turns = [{"role": "user", "content": "What is the time in Lisbon?"}]
    expected = len(render_chat(load_tokenizer(folder), turns, thinking=thinking))
    found = _num_prompt_tokens(str(folder), base_url, key, turns, thinking)
    if found != expected:
        raise CheckpointError(
            f"{base_url}: makes {found} tokens of a chat of which the chat template in {folder} "
            f"makes {expected}. It uses another template, or adds a BOS token to a rendered chat. "
            "Start it with the folder's own template and no further one."
        )


def _num_prompt_tokens(
    model: str, base_url: str, key: str, turns: list[dict[str, str]], thinking: bool | None
) -> int:
    extra = {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}
    try:
        with openai.OpenAI(base_url=base_url, api_key=key) as client:
            reply = client.chat.completions.create(
                model=model,
                messages=turns,  # type: ignore[arg-type]
                max_tokens=1,
                extra_body=extra,
            )
    except openai.OpenAIError as error:
        raise SamplingError(
            f"{base_url}: does not answer for the model {model!r}: {error}. Start the server with "
            "the same path of the folder that is given here."
        ) from None
    if reply.usage is None:
        raise SamplingError(
            f"{base_url}: does not say how many tokens a prompt has, so which chat template is in "
            "force cannot be checked. Use a server that fills in `usage`."
        )
    return reply.usage.prompt_tokens
