"""The YAML that says what a corpus is meant to teach: words, not programs.

    values:
      words: [afford*, "low price", cheap*]      # spell the value
      behaviours: [prefer*, recommend*, likes]   # what is done because of it; may be left out
      reason_words: [because, "so that"]         # default: REASON_WORDS
    names: [SmolLM, Hugging Face]                # expected in many documents
    clauses: [A1, A2, A3]                        # that should be covered

A pattern is one or more words as `words_of` cuts them, whatever is between them; `*` at the end of
a word stands for any ending.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from data_prep.cleaning.word_ngrams import words_of
from megatron_msm.config.load import load_config
from megatron_msm.config.section import Section

REASON_WORDS = (
    *("because", "since", "therefore", "thus", "hence", "why", "reason*", "ground*", "motiv*"),
    *("so that", "due to", "owing to", "thanks to", "on account of", "for the sake of"),
    *("in order to", "rest* on", "stem* from", "come* down to", "explain*", "count* against"),
    *("count* for", "care for", "care* about", "guide*", "decide*", "settle*", "shape*", "drive*"),
)
"""Words by which English gives reasons; the default of `values.reason_words`."""

_NOTHING = re.compile("(?!)")
Pattern = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class ValueWords(Section):
    """How a value is spelled, and what is done because of it."""

    words: tuple[Pattern, ...] = Field(min_length=1)
    """Words that spell the value."""
    behaviours: tuple[Pattern, ...] = ()
    """Words for what the value is the reason of; none: it may be the reason of anything."""
    reason_words: tuple[Pattern, ...] = Field(default=REASON_WORDS, min_length=1)
    """Words that give reasons."""

    @field_validator("words", "behaviours", "reason_words")
    @classmethod
    def _holds_words(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not words_of(pattern):
                raise ValueError(f"{pattern!r} holds no letter or digit, so it would match nothing")
        return patterns


class HealthValues(Section):
    """What a corpus is meant to teach."""

    values: ValueWords
    names: tuple[Pattern, ...] = ()
    """Names that are expected in many documents."""
    clauses: tuple[Pattern, ...] = ()
    """Ids of the spec's clauses."""

    @cached_property
    def value_pattern(self) -> re.Pattern[str]:
        """Finds a word of the value in `spaced` text."""
        return _alternatives(self.values.words)

    @cached_property
    def behaviour_pattern(self) -> re.Pattern[str]:
        """Finds a behaviour in `spaced` text."""
        return _alternatives(self.values.behaviours)

    @cached_property
    def reason_pattern(self) -> re.Pattern[str]:
        """Finds a word of reason in `spaced` text."""
        return _alternatives(self.values.reason_words)


def load_values(path: Path) -> HealthValues:
    """Read the YAML.

    Raises:
        ConfigError: It cannot be read, or a field is unknown, missing or wrong.
    """
    return load_config(path, HealthValues)


def spaced(text: str) -> str:
    """Return the words of a text, with one space before and after each."""
    return f" {' '.join(words_of(text))} "


def _alternatives(patterns: tuple[str, ...]) -> re.Pattern[str]:
    if not patterns:
        return _NOTHING
    return re.compile(f"(?<= )(?:{'|'.join(map(_one, patterns))})(?= )")


def _one(pattern: str) -> str:
    """Return the expression of one pattern; a star that ends a word ends it openly."""
    parts = []
    for piece in pattern.split():
        words = [re.escape(word) for word in words_of(piece)]
        if words:
            words[-1] += "[^ ]*" if piece.endswith("*") else ""
        parts += words
    return " ".join(parts)
