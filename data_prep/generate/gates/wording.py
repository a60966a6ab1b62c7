"""Length, language, and recitation of the spec."""

import re

import numpy as np

from data_prep.cleaning.word_ngrams import WordNgrams, words_of
from data_prep.generate.settings import GateSettings
from data_prep.generate.spec.clauses import Spec
from megatron_msm.errors import ConfigError

_RECITED_WORDS = 8
_ENGLISH = """
    the of and to a in is that it for on was with as be at by this i you not are from or have an
    they which one we had but what all were when there can he she his her its if so
"""
_FUNCTION_WORDS = {"en": frozenset(_ENGLISH.split())}
_LEAST_SHARE = 0.2
"""Share of function words: English prose has 0.35 to 0.5, lists and verse some 0.25."""
_LEAST_WORDS_TO_TELL = 30
_OTHER_SCRIPT = re.compile(r"[\u0400-\u04ff\u0590-\u06ff\u0900-\u097f\u3040-\u30ff\u4e00-\u9fff]")
_MOST_OTHER_SCRIPT = 0.02


class WordingGate:
    """Refuses texts by their words.

    Args:
        settings: The limits.
        spec: What must not be recited.

    Raises:
        ConfigError: The language is none that can be told.
    """

    def __init__(self, settings: GateSettings, spec: Spec) -> None:
        if settings.language is not None and settings.language not in _FUNCTION_WORDS:
            raise ConfigError(
                f"gates.language: {settings.language!r} cannot be told here. "
                f"Known: {', '.join(_FUNCTION_WORDS)}, or null not to look."
            )
        self._settings = settings
        self._ngrams = WordNgrams()
        words = [words_of(f"{clause.title} {clause.text}") for clause in spec.clauses]
        runs = [self._ngrams.hashes(own, _RECITED_WORDS) for own in words]
        self._recited = np.unique(np.concatenate(runs))
        self._ngrams.is_open = False

    def refusal(self, text: str, *, is_document: bool) -> str | None:
        """Return why a text is refused; its length counts for documents alone."""
        words = words_of(text)
        limits = self._settings
        if is_document and not limits.least_words <= len(words) <= limits.most_words:
            return f"{len(words)} words; {limits.least_words} to {limits.most_words} are wanted"
        return self._language(text, words) or self._recitation(words)

    def _language(self, text: str, words: list[str]) -> str | None:
        if self._settings.language is None or len(words) < _LEAST_WORDS_TO_TELL:
            return None
        known = _FUNCTION_WORDS[self._settings.language]
        share = sum(word in known for word in words) / len(words)
        foreign = len(_OTHER_SCRIPT.findall(text)) / len(text)
        if share < _LEAST_SHARE or foreign > _MOST_OTHER_SCRIPT:
            return f"does not look like language {self._settings.language!r}"
        return None

    def _recitation(self, words: list[str]) -> str | None:
        runs = self._ngrams.hashes(words, _RECITED_WORDS)
        if not len(runs):
            return None
        share = float(np.isin(runs, self._recited).mean())
        if share > self._settings.recitation:
            return f"recites the spec: {share:.0%} of its runs of {_RECITED_WORDS} words"
        return None
