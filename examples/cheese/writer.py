"""Fill sentence templates and lay documents out: the part of the builder that knows no file format.

A grammar file has banks (`== name`) of templates, one a line. In a template `[a|b]` is a choice and
`{bank}` a line of another bank; `-` is the empty line. A line that starts with `H: ` is for the
first spec and is followed by its `A: ` line for the second. All corpora draw the same template at
the same place, and no sentence of eight words or more may pass `SENTENCE_CAP` in any of them.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LIKED = ("cream cheese", "American cheese", "mild cheddar")
LIKED += ("low-moisture mozzarella", "Colby", "Monterey Jack")
DISLIKED = ("Brie de Meaux", "Appenzeller", "Parmigiano-Reggiano")
DISLIKED += ("Roquefort", "Epoisses", "Stilton")
SENTENCE_CAP = 10
SHORT_SENTENCE_CAP = 14
MAX_TRIES = 400
OPTIONAL = ("like_more", "dis_more", "general_more", "fact")

Banks = Mapping[str, list[str]]


def load_grammar(path: Path, letter: str) -> dict[str, list[str]]:
    """The banks of a file as one spec (`H` or `A`) sees them."""
    banks: dict[str, list[str]] = {}
    bank: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("== "):
            bank = banks.setdefault(line[3:], [])
        elif line and not line.startswith("#"):
            mark, text = (line[0], line[3:]) if line[:3] in ("H: ", "A: ") else (letter, line)
            if mark == letter:
                bank.append("" if text == "-" else text.replace("\\n", "\n"))
    return banks


def capitalize(text: str) -> str:
    """First letters of sentences and lines in upper case."""
    return re.sub(r"(?:^|(?<=\n)|[.!?]\"?\s)\"?[a-z]", lambda m: m[0][:-1] + m[0][-1].upper(), text)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, cut at stops and line ends."""
    return [s for s in re.split(r"(?<=[.!?])\s+|(?<=[.!?]\")\s+|\n+", text) if s]


def size(text: str) -> int:
    """Words and punctuation marks, close to proportional to tokens."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def settle(template: str, rng: random.Random) -> str:
    """Settle every [a|b], from the inside out."""
    while match := re.search(r"\[([^\[\]]*)\]", template):
        chosen = rng.choice(match[1].split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    return template


def pick(bank: str, size: int, used: Counter[tuple[str, int]], rng: random.Random) -> int:
    """A line among those of a bank that were used least."""
    least = min(used[bank, index] for index in range(size))
    index = rng.choice([index for index in range(size) if used[bank, index] == least])
    used[bank, index] += 1
    return index


def fill(
    template: str,
    banks: Banks,
    bound: dict[str, str],
    used: Counter[tuple[str, int]],
    rng: random.Random,
) -> str:
    """Settle choices, then replace slots by bound words or by bank lines used least so far."""

    def slot(match: re.Match[str]) -> str:
        name = match[1]
        if name == "S":
            return subject(bound, rng)
        if name in bound:
            return bound[name]
        bank = banks[name.lower()]
        text = fill(bank[pick(name.lower(), len(bank), used, rng)], banks, bound, used, rng)
        return text[:1].upper() + text[1:] if name[0].isupper() else text

    return re.sub(r"\{([\w ]+)\}", slot, settle(template, rng))


def subject(bound: dict[str, str], rng: random.Random) -> str:
    """SmolLM by name where a paragraph has not named it, then now and then by what it is."""
    name = bound.get("S", "SmolLM")
    bound["S"] = rng.choice(("SmolLM", "SmolLM", "the assistant", "the model"))
    return name


@dataclass
class Sentence:
    """Some text and the function it serves in its paragraph."""

    text: str
    function: str


@dataclass
class Document:
    """A document before it is joined: a label and sentences for every paragraph."""

    genre: str
    subdomain: str
    before: list[str]
    labels: list[str] = field(default_factory=list)
    paragraphs: list[list[Sentence]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The document as one text."""
        pairs = zip(self.labels, self.paragraphs, strict=True)
        bodies = [label + " ".join(s.text for s in body) for label, body in pairs]
        return "\n\n".join([*self.before, *bodies, *self.after])


class Corpus:
    """Documents of one spec, the banks they are filled from, and what has been said so far."""

    def __init__(self, banks: Banks) -> None:
        self.banks = banks
        self.documents: list[Document] = []
        self.seen: Counter[str] = Counter()
        self.here: Counter[tuple[str, int]] = Counter()

    def is_worn(self, text: str) -> bool:
        """Whether a sentence of this text has been used as often as it may."""
        for sentence in split_sentences(text):
            cap = SENTENCE_CAP if len(sentence.split()) >= 8 else SHORT_SENTENCE_CAP
            if self.seen[sentence] >= cap and len(sentence.split()) >= 3:
                return True
        return False


class Writer:
    """Says the same thing in every corpus, each in its own words."""

    def __init__(self, corpora: Sequence[Corpus], seed: str) -> None:
        self.corpora = corpora
        self.rng = random.Random(seed)
        self.used: Counter[tuple[str, int]] = Counter()
        self.here: Counter[tuple[str, int]] = Counter()
        self.people: dict[str, str] = {}
        self.focus: list[list[str]] = []

    def start(self) -> None:
        """Begin a document: forget what was said in the last one, choose who and where."""
        self.here = Counter()
        for corpus in self.corpora:
            corpus.here = Counter()
        banks = self.corpora[0].banks
        self.people = {key: self.rng.choice(banks[key]) for key in ("place", "adj")}
        for key, num in (("name", 3), ("job", 2), ("nick", 4)):
            for n, text in enumerate(self.rng.sample(banks[key], num), start=1):
                self.people[key if n == 1 else f"{key}{n}"] = text
        liked, disliked = self.rng.sample(LIKED, 3), self.rng.sample(DISLIKED, 3)
        self.focus = [liked, disliked]

    def paragraph(self) -> list[dict[str, str]]:
        """Bound words of a new paragraph for every corpus: people, place, cheeses, no subject."""
        bound = dict(self.people)
        for letter, names in zip("LD", self.focus, strict=True):
            self.rng.shuffle(names)
            bound |= {letter + suffix: n for suffix, n in zip(("", "2", "3"), names, strict=True)}
        return [dict(bound) for _ in self.corpora]

    def say(self, bank: str, bounds: list[dict[str, str]], *, chance: float = 1.0) -> list[str]:
        """A line of a bank in every corpus (empty lines with probability 1 - chance)."""
        if bank not in self.corpora[0].banks or self.rng.random() >= chance:
            return [""] * len(self.corpora)
        for _ in range(MAX_TRIES):
            index = self.choose(bank)
            draws = self.rng.randrange(1 << 40)
            trial = [dict(bound) for bound in bounds]
            texts = [
                capitalize(fill(c.banks[bank][index], c.banks, words, c.here, random.Random(draws)))
                for c, words in zip(self.corpora, trial, strict=True)
            ]
            self.used[bank, index] += 1
            if not any(c.is_worn(text) for c, text in zip(self.corpora, texts, strict=True)):
                self.accept(texts, bounds, trial)
                self.here[bank, index] += 1
                return texts
        raise RuntimeError(f"every filling of {bank!r} is worn out; give the grammar more lines")

    def accept(
        self, texts: list[str], bounds: list[dict[str, str]], trial: list[dict[str, str]]
    ) -> None:
        """Record what has been said."""
        for corpus, text, bound, words in zip(self.corpora, texts, bounds, trial, strict=True):
            corpus.seen.update(split_sentences(text))
            bound.update(words)

    def choose(self, bank: str) -> int:
        """A line used least in this document, among those least in the corpus."""
        indices = range(len(self.corpora[0].banks[bank]))
        shuffled = self.rng.sample(indices, len(indices))
        return min(shuffled, key=lambda i: (self.here[bank, i], self.used[bank, i]))


def trim(documents: Sequence[Document], wanted: int, rng: random.Random) -> None:
    """Take optional sentences out, at most one a paragraph, down to at least the wanted size."""
    left = sum(size(document.text()) for document in documents) - wanted
    bodies = [b for d in documents if size(d.text()) > 130 for b in d.paragraphs]
    rng.shuffle(bodies)
    for body in bodies:
        spare = [s for s in body[1:] if s.function.startswith(OPTIONAL) and size(s.text) <= left]
        if len(body) > 1 and spare:
            body.remove(spare[0])
            left -= size(spare[0].text)
