"""Clients, one for each kind of endpoint.

A call in, the reply of one attempt or a `CallError` out.
"""

from megatron_msm.llm.batch_client import BatchClient
from megatron_msm.llm.call import Client
from megatron_msm.llm.endpoints import AnthropicEndpoint, JournalEndpoint, OpenAIEndpoint


def new_client(endpoint: OpenAIEndpoint | AnthropicEndpoint | JournalEndpoint) -> Client:
    """Return the client of an endpoint.

    Raises:
        ConfigError: Its key is missing, or its recording cannot be read.
    """
    # Each SDK takes a second to import, and most runs use one.
    if isinstance(endpoint, OpenAIEndpoint):
        from megatron_msm.llm.clients.openai_client import OpenAIClient

        return OpenAIClient(endpoint)
    if isinstance(endpoint, AnthropicEndpoint):
        from megatron_msm.llm.clients.anthropic_client import AnthropicClient

        return AnthropicClient(endpoint)
    from megatron_msm.llm.clients.recorded import RecordedClient

    return RecordedClient(endpoint.path)


def new_batch_client(endpoint: OpenAIEndpoint | AnthropicEndpoint) -> BatchClient:
    """Return what sends an endpoint's batches.

    Raises:
        ConfigError: Its key is missing.
    """
    if isinstance(endpoint, OpenAIEndpoint):
        from megatron_msm.llm.clients.openai_batches import OpenAIBatches

        return OpenAIBatches(endpoint)
    from megatron_msm.llm.clients.anthropic_batches import AnthropicBatches

    return AnthropicBatches(endpoint)
