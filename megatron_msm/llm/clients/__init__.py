"""Clients, one for each kind of endpoint.

A call in, the reply of one attempt or a `CallError` out; with `batch`, many calls at a time.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from megatron_msm.llm.batch_client import BatchClient
from megatron_msm.llm.call import Client
from megatron_msm.llm.clients.recorded import RecordedClient
from megatron_msm.llm.endpoints import (
    AnthropicEndpoint,
    Endpoint,
    JournalEndpoint,
    OpenAIEndpoint,
)


def new_client(endpoint: Endpoint) -> Client:
    """Return the client of an endpoint.

    Raises:
        ConfigError: Its key is missing, or its recording cannot be read.
    """
    if isinstance(endpoint, JournalEndpoint):
        return RecordedClient(endpoint.path)
    return _clients(endpoint).live()


def new_batch_client(endpoint: OpenAIEndpoint | AnthropicEndpoint) -> BatchClient:
    """Return what sends an endpoint's batches.

    Raises:
        ConfigError: Its key is missing.
    """
    return _clients(endpoint).batch()


class _Clients(NamedTuple):
    live: Callable[[], Client]
    batch: Callable[[], BatchClient]


def _clients(endpoint: OpenAIEndpoint | AnthropicEndpoint) -> _Clients:
    # Each SDK takes a second to import, and most runs use one.
    if isinstance(endpoint, OpenAIEndpoint):
        from megatron_msm.llm.clients import openai_batches, openai_client

        return _Clients(
            partial(openai_client.OpenAIClient, endpoint),
            partial(openai_batches.OpenAIBatches, endpoint),
        )
    from megatron_msm.llm.clients import anthropic_batches, anthropic_client

    return _Clients(
        partial(anthropic_client.AnthropicClient, endpoint),
        partial(anthropic_batches.AnthropicBatches, endpoint),
    )
