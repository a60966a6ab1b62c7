"""Distinct-n and self-BLEU against counts by hand and against nltk's BLEU."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from data_prep.health.diversity import bleu, count_runs, distinct_n, evenness, self_bleu
from tests.unit.data_prep.health.corpora import numbered

PLAIN = Path(__file__).resolve().parents[4] / "examples" / "plain_or_lasting" / "plain.docs.jsonl"
TEXTS = [
    "the cat sat on the mat and the dog sat on the rug",
    "the dog sat on the mat while the cat slept on the rug",
    "a bird sang in the tree above the garden wall all day",
    "the cat sat on the mat",
]
BY_NLTK = [0.6997522298221912, 0.5731224484094262, 0.10579369505074822, 0.36787944117144233]
"""nltk 3.10.4: `modified_precision` with one added to both counts, `closest_ref_length`,
`brevity_penalty`; each text against the three others."""
OF_30_BY_NLTK = 0.1523047729368866
"""The mean of the same for the first 30 documents of the example, each against the 29 others."""


@pytest.mark.parametrize("index", range(4))
def test_bleu_is_nltks(index: int) -> None:
    counted = [count_runs(words) for words in numbered(TEXTS)]
    others = counted[:index] + counted[index + 1 :]
    assert bleu(counted[index], others) == pytest.approx(BY_NLTK[index], rel=1e-12)


def test_bleu_by_hand() -> None:
    one, other = (count_runs(words) for words in numbered(["a b c d", "a b x d"]))
    # Runs in common: 3 of 4 words, 1 of 3 pairs, 0 of 2 triples, 0 of 1 run of four.
    by_hand = (4 / 5 * 2 / 4 * 1 / 3 * 1 / 2) ** (1 / 4)
    assert bleu(one, [other]) == pytest.approx(by_hand, rel=1e-12)
    short, long = (count_runs(words) for words in numbered(["a b", "a b c d"]))
    assert bleu(short, [long]) == pytest.approx(math.exp(1 - 4 / 2), rel=1e-12)
    assert bleu(long, [short]) == pytest.approx((3 / 5 * 2 / 4 * 1 / 3 * 1 / 2) ** (1 / 4))


def test_self_bleu_of_few_documents_is_the_mean_over_all_pairs() -> None:
    rows = [json.loads(line) for line in PLAIN.read_text().splitlines()]
    texts = [row["text"] for row in rows if int(row["id"][-2:]) <= 15][:30]
    assert self_bleu(numbered(texts)) == pytest.approx(OF_30_BY_NLTK, rel=1e-12)


def test_self_bleu_needs_two_texts_and_no_text_is_its_own_reference() -> None:
    assert self_bleu(numbered(["a b c", "!"])) is None
    assert self_bleu(numbered(["a b c d", "e f g h"])) == pytest.approx(
        (1 / 5 * 1 / 4 * 1 / 3 * 1 / 2) ** (1 / 4)
    )
    assert self_bleu(numbered(["a b c d", "a b c d"])) == pytest.approx(1.0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_distinct_n_is_a_count_of_runs(size: int) -> None:
    texts = [json.loads(line)["text"] for line in PLAIN.read_text().splitlines()]
    words = [text.casefold().split() for text in texts]
    plain = [" ".join("".join(c for c in w if c.isalnum()) or "x" for w in each) for each in words]
    runs = [
        tuple(each[first : first + size])
        for each in (text.split() for text in plain)
        for first in range(len(each) - size + 1)
    ]
    expected = len(set(runs)) / len(runs)
    assert distinct_n(numbered(plain), size) == pytest.approx(expected, rel=1e-12)


def test_distinct_n_stops_at_its_words() -> None:
    documents = numbered(["a b c", "a b c d e f"])
    assert distinct_n(documents, 1, most=6) == 3 / 6
    assert distinct_n(documents, 1, most=9) == 6 / 9


def test_evenness_is_one_for_equal_and_none_for_a_single_kind() -> None:
    assert evenness(Counter(a=5, b=5, c=5)) == pytest.approx(1.0)
    assert evenness(Counter(a=3, b=1)) == pytest.approx(0.811278, abs=1e-6)  # bits of a 3:1 coin
    assert evenness(Counter(a=3)) is None
