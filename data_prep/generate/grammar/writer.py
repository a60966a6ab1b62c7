"""Says the same thing in one or several corpora at a time, each in its own words."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from data_prep.generate.grammar.filling import Filler, Used, capitalize, split_sentences
from megatron_msm.errors import DataFormatError

_SENTENCE_CAP = 10
_SHORT_SENTENCE_CAP = 14
"""How often a corpus may hold a sentence of eight words or more, and a shorter one."""
_MOST_TRIES = 400


@dataclass
class Sentence:
    """Some text and the bank that it is from."""

    text: str
    bank: str


@dataclass
class Composed:
    """A document before it is joined: a label and sentences for every paragraph."""

    genre: str
    before: list[str]
    kinds: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    paragraphs: list[list[Sentence]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the document as one text."""
        pairs = zip(self.labels, self.paragraphs, strict=True)
        bodies = [label + " ".join(s.text for s in body) for label, body in pairs]
        return "\n\n".join([*self.before, *bodies, *self.after])


class CorpusText:
    """Documents of one corpus, the banks they are filled from, and what has been said so far."""

    def __init__(self, filler: Filler) -> None:
        self.filler = filler
        self.documents: list[Composed] = []
        self.seen: Counter[str] = Counter()
        self.here: Used = Counter()

    def is_worn(self, text: str) -> bool:
        """Whether a sentence of this text has been used as often as it may."""
        for sentence in split_sentences(text):
            cap = _SENTENCE_CAP if len(sentence.split()) >= 8 else _SHORT_SENTENCE_CAP
            if self.seen[sentence] >= cap and len(sentence.split()) >= 3:
                return True
        return False


class Writer:
    """Draws one template at a time and fills it in every corpus.

    Args:
        corpora: The corpora; their banks have as many lines each.
        words: Lists of which a document takes three each.
        cast: How many lines of which banks a document takes for good.
        seed: Decides everything.
    """

    def __init__(
        self,
        corpora: Sequence[CorpusText],
        *,
        words: Mapping[str, Sequence[str]],
        cast: Mapping[str, int],
        seed: str,
    ) -> None:
        self.corpora = corpora
        self.rng = random.Random(seed)
        self.people: dict[str, str] = {}
        self._words = words
        self._cast = cast
        self._focus: dict[str, list[str]] = {}
        self._used: Used = Counter()
        self._here: Used = Counter()

    def start(self) -> None:
        """Begin a document: forget what was said in the last one, choose who, where and what."""
        self._here = Counter()
        for corpus in self.corpora:
            corpus.here = Counter()
        banks = self.corpora[0].filler.banks
        self.people = {}
        for name, number in self._cast.items():
            lines = banks[name]
            taken = [self.rng.choice(lines)] if number == 1 else self.rng.sample(lines, number)
            self.people |= numbered(name, taken)
        self._focus = {letter: self.rng.sample(list(w), 3) for letter, w in self._words.items()}

    def paragraph(self) -> list[dict[str, str]]:
        """Return the bound words of a new paragraph for every corpus."""
        bound = dict(self.people)
        for letter, words in self._focus.items():
            self.rng.shuffle(words)
            bound |= numbered(letter, words)
        return [dict(bound) for _ in self.corpora]

    def say(self, bank: str, bounds: list[dict[str, str]], *, chance: float = 1.0) -> list[str]:
        """Return a line of a bank in every corpus; empty ones with probability 1 - chance.

        Raises:
            DataFormatError: Every filling has been used as often as it may.
        """
        if bank not in self.corpora[0].filler.banks or self.rng.random() >= chance:
            return [""] * len(self.corpora)
        for _ in range(_MOST_TRIES):
            index = self._choose(bank)
            draws = self.rng.randrange(1 << 40)
            trial = [dict(bound) for bound in bounds]
            texts = [
                capitalize(
                    c.filler.fill(c.filler.banks[bank][index], words, c.here, random.Random(draws))
                )
                for c, words in zip(self.corpora, trial, strict=True)
            ]
            self._used[bank, index] += 1
            if not any(c.is_worn(text) for c, text in zip(self.corpora, texts, strict=True)):
                self._accept(texts, bounds, trial)
                self._here[bank, index] += 1
                return texts
        raise DataFormatError(
            f"grammar: every filling of the bank {bank!r} is worn out. Give it more lines."
        )

    def _accept(
        self, texts: list[str], bounds: list[dict[str, str]], trial: list[dict[str, str]]
    ) -> None:
        for corpus, text, bound, words in zip(self.corpora, texts, bounds, trial, strict=True):
            corpus.seen.update(split_sentences(text))
            bound.update(words)

    def _choose(self, bank: str) -> int:
        """Return a line used least in this document, among those least in the corpus."""
        indices = range(len(self.corpora[0].filler.banks[bank]))
        shuffled = self.rng.sample(indices, len(indices))
        return min(shuffled, key=lambda i: (self._here[bank, i], self._used[bank, i]))


def numbered(name: str, values: Sequence[str]) -> dict[str, str]:
    """Return `{name: first, name2: second, ...}`."""
    suffixes = ("" if n == 1 else str(n) for n in count(1))
    return {name + suffix: value for suffix, value in zip(suffixes, values, strict=False)}
