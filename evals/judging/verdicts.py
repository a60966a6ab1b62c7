"""Reading a judge's verdict: one tag with one allowed word, or nothing.

A word is never searched for in running text: "yes" is part of "yesterday".
"""

import re
from collections.abc import Collection


def read_tag(text: str, tag: str) -> str | None:
    """Return what the only `<tag>...</tag>` of a reply holds; None without exactly one.

    A judge that gives two verdicts has given none, unless both are the same.
    """
    found = {
        content.strip().lower()
        for content in re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL | re.IGNORECASE)
    }
    return found.pop() if len(found) == 1 else None


def read_word(text: str, tag: str, allowed: Collection[str]) -> str | None:
    """Return the allowed word in the only `<tag>` of a reply, or None."""
    word = read_tag(text, tag)
    return word if word in allowed else None


def read_points(text: str, tag: str, *, low: int, high: int) -> int | None:
    """Return the whole number from `low` to `high` in the only `<tag>` of a reply, or None."""
    word = read_tag(text, tag)
    if word is None or not re.fullmatch(r"[0-9]{1,3}", word):
        return None
    return int(word) if low <= int(word) <= high else None
