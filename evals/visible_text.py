"""Texts from files, made safe to show: what cannot be seen is replaced by a mark that can."""

import unicodedata

UNSAFE_CATEGORIES = {"Cc", "Cf", "Cn", "Cs", "Zl", "Zp"}
"""Control, invisible formatting (text direction), unassigned, surrogates, line separators."""


def visible(text: str) -> str:
    """Return one line of text that cannot move a cursor, turn its direction or break XML."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in UNSAFE_CATEGORIES else char
        for char in text
    )
