"""What a call costs: the user's price, or the published one. An unknown price is never zero."""

import genai_prices

from megatron_msm.llm.call import Usage
from megatron_msm.llm.endpoints import (
    AnthropicEndpoint,
    OfflineEndpoint,
    OpenAIEndpoint,
    Price,
    WriterEndpoint,
)

_PER_MILLION = 1e-6
_BATCH_SHARE = 0.5
"""What OpenAI and Anthropic ask for a call in a batch, as a share of the usual price."""


def cost_usd(usage: Usage, endpoint: WriterEndpoint) -> float | None:
    """Return what a call cost in US dollars; None if the price is not known."""
    if isinstance(endpoint, OfflineEndpoint):
        return 0.0
    if usage == Usage() and endpoint.price != Price(input=0, output=0):
        return None  # A server that does not count its tokens does not give them away.
    if endpoint.price is not None:
        return _by_price(usage, endpoint.price) * (_BATCH_SHARE if endpoint.batch else 1.0)
    return _published(usage, endpoint)


def _by_price(usage: Usage, price: Price) -> float:
    cached = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input_tokens - usage.cached_tokens
    total = fresh * price.input + usage.cached_tokens * cached + usage.output_tokens * price.output
    return total * _PER_MILLION


def _published(usage: Usage, endpoint: OpenAIEndpoint | AnthropicEndpoint) -> float | None:
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    context = {"processing": "batch"} if endpoint.batch else None
    try:
        if endpoint.base_url is not None:
            found = genai_prices.calc_price(
                counted,
                endpoint.model,
                provider_api_url=endpoint.base_url,
                price_context=context,
            )
        else:
            found = genai_prices.calc_price(
                counted, endpoint.model, provider_id=endpoint.kind, price_context=context
            )
    except LookupError:
        return None
    return float(found.total_price)
