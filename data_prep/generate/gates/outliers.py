"""Names and phrases that too many texts share: shown, as each may be wanted or not."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from data_prep.cleaning.word_ngrams import WordNgrams, words_of
from data_prep.health.frames import SharedRuns, common_phrases
from data_prep.health.names import names_of

_PHRASE_WORDS = 6
_FEWEST = 2
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
    least = max(_FEWEST, math.floor(share * len(texts)) + 1)
    names = [
        (name, count)
        for name, count in names_of(texts).items()
        if count >= least and not any(name in known for known in expected)
    ]
    ngrams = WordNgrams()
    shared = SharedRuns([ngrams.ids(words_of(text)) for text in texts], _PHRASE_WORDS)
    phrases = common_phrases(texts, shared, least=least, most=_SHOWN)
    found = [Outlier("name", name, count / len(texts)) for name, count in names]
    found += [Outlier("phrase", phrase.text, phrase.documents / len(texts)) for phrase in phrases]
    return sorted(found, key=lambda outlier: (-outlier.share, outlier.text))[:_SHOWN]
