"""What an HTTP status of a model's server means for a call."""

from collections.abc import Mapping
from typing import Literal

from megatron_msm.llm.call import CallError

_TOO_MANY = (429, 529)
_TRANSIENT = (408, 409, 425)
_FATAL = (401, 402, 403, 404, 405)
_LONGEST_MESSAGE = 300


def status_error(status: int, message: str, headers: Mapping[str, str]) -> CallError:
    """Return the error of an answer with an HTTP error status."""
    outcome: Literal["retry", "rejected", "fatal"] = "rejected"
    if status in (*_TOO_MANY, *_TRANSIENT) or (status >= 500 and status != 501):
        outcome = "retry"
    elif status in _FATAL:
        outcome = "fatal"
    text = f"HTTP {status}: {message[:_LONGEST_MESSAGE]}"
    return CallError(
        text,
        outcome=outcome,
        is_rate_limit=status in _TOO_MANY,
        retry_after_s=_seconds(headers.get("retry-after")),
    )


def _seconds(text: str | None) -> float | None:
    """Return a Retry-After given in seconds; a date is left to the usual back-off."""
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < 3600 else None
