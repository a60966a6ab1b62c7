"""Doses of a corpus: a smaller one is part of a larger one, in documents, words or tokens.

Documents are taken in the order of a hash of their ids, as many as fit. So a dose depends neither
on the order of a file nor on other doses, those of `msm prep subset` included, and twins are in it
together; where they differ in length, no corpus gets more than was asked for.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from data_prep.cleaning.subset import rank_of
from data_prep.cleaning.word_ngrams import words_of
from data_prep.generate.corpus.twins import ReadCorpus
from data_prep.tokenizing.encode import token_counts
from megatron_msm.errors import ConfigError

Unit = Literal["documents", "words", "tokens"]


class Dose(NamedTuple):
    """How much of each corpus is wanted."""

    amount: int
    unit: Unit
    tokenizer: Path | None = None
    """Counts tokens."""


def sizes(texts: Sequence[str], unit: Unit, tokenizer: Path | None = None) -> list[int]:
    """Return the size of each text in a unit; the end of a document is no token of it.

    Raises:
        CheckpointError: The tokenizer cannot be read.
    """
    if unit == "tokens":
        assert tokenizer is not None
        return token_counts(tokenizer, texts)
    count: Callable[[str], int] = (
        (lambda text: len(words_of(text))) if unit == "words" else (lambda text: 1)
    )
    return [count(text) for text in texts]


def dosed_ids(ids: Sequence[str], corpora: Sequence[ReadCorpus], dose: Dose) -> list[str]:
    """Return as many ids as fit into a dose of every corpus, in the order in which they came.

    Raises:
        ConfigError: There is less than the dose, or not even one document fits.
    """
    order = sorted(ids, key=lambda name: rank_of(name.encode()))
    amounts = [
        sizes([corpus.rows[name].text for name in order], dose.unit, dose.tokenizer)
        for corpus in corpora
    ]
    totals = [sum(amount) for amount in amounts]
    if max(totals, default=0) < dose.amount:
        there = ", ".join(
            f"{total:,} in {corpus.name}" for total, corpus in zip(totals, corpora, strict=True)
        )
        raise ConfigError(
            f"--{dose.unit} {dose.amount:,}: after the other conditions there are {there}. "
            "Ask for less, or generate more."
        )
    taken, so_far = set(), [0] * len(corpora)
    for name, *own in zip(order, *amounts, strict=True):
        so_far = [one + more for one, more in zip(so_far, own, strict=True)]
        if max(so_far) > dose.amount:
            break
        taken.add(name)
    if not taken:
        raise ConfigError(
            f"--{dose.unit} {dose.amount:,}: not even the first document fits. Ask for more."
        )
    return [name for name in ids if name in taken]
