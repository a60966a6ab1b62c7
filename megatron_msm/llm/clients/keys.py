"""API keys come from the environment and stay there: no file, log or message holds one."""

import os
import re
from urllib.parse import urlsplit

from megatron_msm.errors import ConfigError

_NO_KEY = "none"
_LOOKS_LIKE_A_KEY = re.compile(r"\b(sk|key)-[\w*-]{8,}|\bBearer +\S+")


def api_key(variable: str, *, base_url: str | None) -> str:
    """Return the key in an environment variable.

    A server of one's own (any `base_url` on this machine) needs none.

    Raises:
        ConfigError: The variable is empty.
    """
    key = os.environ.get(variable, "")
    if key:
        return key
    host = urlsplit(base_url or "").hostname
    if host in ("localhost", "127.0.0.1", "::1"):
        return _NO_KEY
    where = base_url or "the provider"
    raise ConfigError(
        f"environment variable {variable} is not set: {where} needs a key. Export it, or name "
        "another one in the endpoint's `api_key_env` (any text will do for a server without keys)."
    )


def without_keys(text: str, key: str) -> str:
    """Return what a server said, without the key it was sent or anything that looks like one."""
    if key not in ("", _NO_KEY):
        text = text.replace(key, "[key]")
    return _LOOKS_LIKE_A_KEY.sub("[key]", text)
