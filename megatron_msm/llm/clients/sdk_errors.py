"""What an error of a provider's SDK means for a call, in words that hold no key.

Both SDKs are made by one generator and name their errors alike.
"""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Literal

from megatron_msm.llm.call import CallError
from megatron_msm.llm.clients.keys import without_keys

BROKEN_ANSWER = (json.JSONDecodeError, UnicodeDecodeError)
"""What the SDKs let through if an answer is not JSON."""

_TOO_MANY = (429, 529)
_TRANSIENT = (408, 409, 425)
_FATAL = (401, 402, 403, 404, 405)
_OUT_OF_MONEY = ("insufficient_quota", "exceeded your current quota", "credit balance is too low")
"""How providers say that an account is empty: with the status of a rate limit, or of a bad call."""
_LONGEST_MESSAGE = 300


def call_error(error: Exception, *, sdk: ModuleType, key: str) -> CallError:
    """Return what an exception of an SDK's request means.

    Args:
        error: What the SDK raised.
        sdk: The package `openai` or `anthropic`.
        key: The key that was sent: a server may repeat it in its message.
    """
    if isinstance(error, sdk.APIStatusError):
        text = without_keys(error.message, key)
        return status_error(error.status_code, text, error.response.headers)
    if isinstance(error, sdk.APITimeoutError):
        return CallError("no answer in time", outcome="retry")
    text = without_keys(str(error), key)[:_LONGEST_MESSAGE]
    if isinstance(error, sdk.APIConnectionError):
        return CallError(text, outcome="retry")
    return CallError(f"the server's answer is broken: {text}", outcome="retry")


def status_error(status: int, message: str, headers: Mapping[str, str]) -> CallError:
    """Return the error of an answer with an HTTP error status."""
    outcome: Literal["retry", "rejected", "fatal"] = "rejected"
    is_empty = any(words in message for words in _OUT_OF_MONEY)
    if is_empty or status in _FATAL:
        outcome = "fatal"
    elif status in (*_TOO_MANY, *_TRANSIENT) or (status >= 500 and status != 501):
        outcome = "retry"
    return CallError(
        f"HTTP {status}: {message[:_LONGEST_MESSAGE]}",
        outcome=outcome,
        is_rate_limit=status in _TOO_MANY and not is_empty,
        retry_after_s=_seconds(headers.get("retry-after")),
    )


def _seconds(text: str | None) -> float | None:
    """Return a Retry-After given in seconds; a date or nought is left to the usual back-off."""
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 < seconds < 3600 else None
