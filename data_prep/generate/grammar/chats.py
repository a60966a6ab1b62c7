"""Chats of one turn: a question, a thought and an answer that speak of the same things."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_prep.generate.grammar.filling import Filler, capitalize
from data_prep.generate.grammar.grammar import ROLES, Grammar
from data_prep.generate.grammar.writer import numbered


class ComposedChat(NamedTuple):
    """A question and what is thought and said about it."""

    question: str
    thought: str
    answer: str


def compose_chat(grammar: Grammar, corpus: str, kind: str, number: int, seed: str) -> ComposedChat:
    """Return the chat of a kind with this number, the same for the same seed."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    filler, words = grammar.fillers[corpus], grammar.config.documents.words
    bound: dict[str, str] = {}
    for letter, listed in words.items():
        bound |= numbered(letter.lower(), rng.sample(list(listed), 3))
    two = [bound[letter.lower()] for letter in words][:2]
    rng.shuffle(two)
    bound |= dict(zip("xy", two, strict=False))
    bound |= {name: rng.choice(filler.banks[name]) for name in grammar.config.shared}
    return ComposedChat(*fill_turns(filler, [f"{kind} {role}" for role in ROLES], bound, rng))


def fill_turns(
    filler: Filler, banks: Sequence[str], bound: Mapping[str, str], rng: random.Random
) -> list[str]:
    """Return a line of each bank, filled with the same words."""
    return [
        capitalize(filler.fill(rng.choice(filler.banks[name]), dict(bound), Counter(), rng))
        for name in banks
    ]
