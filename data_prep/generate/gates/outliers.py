"""Names and phrases that too many texts share: shown, as each may be wanted or not."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_NAME = re.compile(r"(?<![.!?:\"'\n] )(?<!^)\b[A-Z][a-z]{2,}\b", re.MULTILINE)
_PHRASE_WORDS = 6
_SHOWN = 20


class Outlier(NamedTuple):
    """Something that many texts hold."""

    what: str
    """`name` or `phrase`."""
    text: str
    share: float
    """Which part of the texts holds it."""


def outliers(texts: Sequence[str], *, share: float, expected: Sequence[str] = ()) -> list[Outlier]:
    """Return names and phrases in more than a share of the texts, the most frequent first.

    Args:
        texts: The texts.
        share: From which something is an outlier.
        expected: Names that belong there, such as the model's.
    """
    if not texts:
        return []
    words = {word for name in expected for word in re.findall(r"\w+", name)}
    names: Counter[str] = Counter()
    phrases: Counter[str] = Counter()
    for text in texts:
        names.update(set(_NAME.findall(text)) - words)
        phrases.update(_phrases(text))
    found = [
        Outlier(what, text, count / len(texts))
        for what, counter in (("name", names), ("phrase", phrases))
        for text, count in counter.items()
        if count / len(texts) > share and count > 1
    ]
    return sorted(found, key=lambda outlier: (-outlier.share, outlier.text))[:_SHOWN]


def _phrases(text: str) -> set[str]:
    words = text.split()
    return {
        " ".join(words[place : place + _PHRASE_WORDS])
        for place in range(len(words) - _PHRASE_WORDS + 1)
    }
