"""A template to a text: choices settled, slots replaced."""

import random
import re
from collections import Counter
from collections.abc import Sequence

from data_prep.generate.grammar.banks import Banks

SUBJECT = "S"
Used = Counter[tuple[str, int]]
"""How often each line of each bank was used."""


class Filler:
    """Fills templates for one corpus.

    Args:
        banks: Where slots find their lines.
        subjects: What `{S}` stands for: the first where a text has not said it, then any of the
            others.
    """

    def __init__(self, banks: Banks, subjects: Sequence[str] = ()) -> None:
        self.banks = banks
        self._subjects = subjects

    def fill(self, template: str, bound: dict[str, str], used: Used, rng: random.Random) -> str:
        """Settle choices, then replace slots by bound words or by the bank's lines used least.

        Args:
            template: The template.
            bound: Words of slots that stand for the same thing throughout a text.
            used: Counts of lines, which go on.
            rng: Decides.
        """

        def slot(match: re.Match[str]) -> str:
            name = match[1]
            if name == SUBJECT and self._subjects:
                return self._subject(bound, rng)
            if name in bound:
                return bound[name]
            bank = self.banks[name.lower()]
            line = bank[_pick(name.lower(), len(bank), used, rng)]
            text = self.fill(line, bound, used, rng)
            return text[:1].upper() + text[1:] if name[0].isupper() else text

        return re.sub(r"\{([\w ]+)\}", slot, _settle(template, rng))

    def _subject(self, bound: dict[str, str], rng: random.Random) -> str:
        name = bound.get(SUBJECT, self._subjects[0])
        bound[SUBJECT] = rng.choice(self._subjects[1:])
        return name


def capitalize(text: str) -> str:
    """Return the text with the first letters of sentences and lines in upper case."""
    return re.sub(r"(?:^|(?<=\n)|[.!?]\"?\s)\"?[a-z]", lambda m: m[0][:-1] + m[0][-1].upper(), text)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, cut at stops and line ends."""
    return [s for s in re.split(r"(?<=[.!?])\s+|(?<=[.!?]\")\s+|\n+", text) if s]


def _settle(template: str, rng: random.Random) -> str:
    """Settle every [a|b], from the inside out."""
    while match := re.search(r"\[([^\[\]]*)\]", template):
        chosen = rng.choice(match[1].split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    return template


def _pick(bank: str, size: int, used: Used, rng: random.Random) -> int:
    """Return a line among those of a bank that were used least."""
    least = min(used[bank, index] for index in range(size))
    index = rng.choice([index for index in range(size) if used[bank, index] == least])
    used[bank, index] += 1
    return index
