"""Shared runs, phrases and near duplicates: known templates, and counts by brute force."""

import random
from collections import Counter

import numpy as np
import pytest

from data_prep.cleaning.word_ngrams import words_of
from data_prep.health.frames import SharedRuns, common_phrases, cover, measure_frames
from data_prep.health.near_duplicates import repeated_rows
from tests.unit.data_prep.health.corpora import corpus, numbered

WORDS = [f"{a}{b}" for a in ("ka", "mo", "ri", "su", "te") for b in "bcdfghjklmnp"]


def sentences(draw: random.Random, num: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(num))


def test_runs_are_counted_by_document() -> None:
    draw = random.Random(3)
    texts = [" ".join(draw.choice("abc") for _ in range(30)) for _ in range(12)]
    shared = SharedRuns(numbered(texts), 4)
    expected: Counter[tuple[str, ...]] = Counter()
    cut = [[tuple(text.split()[first : first + 4]) for first in range(27)] for text in texts]
    for runs in cut:
        expected.update(set(runs))
    for index, runs in enumerate(cut):
        assert shared.counts(index).tolist() == [expected[run] for run in runs]


def test_words_are_covered_by_the_runs_over_them() -> None:
    starts = np.array([False, True, False, False, False, True])
    assert cover(starts, 3, 8).tolist() == [False, True, True, True, False, True, True, True]
    assert cover(np.zeros(0, np.bool_), 3, 2).tolist() == [False, False]


def test_a_phrase_is_as_long_as_it_is_shared() -> None:
    draw = random.Random(1)
    phrase = "it is what it is and nothing else matters here"
    texts = [
        f"{sentences(draw, 40)} {phrase if n < 8 else ''} {sentences(draw, 40)}" for n in range(50)
    ]
    shared = SharedRuns(numbered(texts), 6)
    assert common_phrases(texts, shared, least=5, most=9) == [(phrase, 8)]
    section = measure_frames(corpus(texts))
    figures = {figure.name: figure.value for figure in section.figures}
    assert figures["top_phrase"] == pytest.approx(8 / 50)
    words = sum(len(words_of(text)) for text in texts)
    assert figures["frame_share"] == pytest.approx(8 * len(phrase.split()) / words)
    assert section.tables[0].rows[0][:2] == (phrase, "8")


# A source as knowledge bases give it: one frame, other facts.
FRAME = (
    "The town of {0} lies in the district of {1} and was founded in the year {2} by settlers who "
    "came down the river in search of arable land and timber for their boats. It is served by the "
    "regional railway, which stops there on working days, and by two roads that meet on the market "
    "square in front of the old church. According to the last "
    "census it has a population of {3} inhabitants, most of whom work in farming or in the mills "
    "along the river. The mayor of the town is elected every four years by all adult inhabitants."
)


def town(draw: random.Random) -> str:
    name, district = draw.choice(WORDS) + draw.choice(WORDS), draw.choice(WORDS)
    return FRAME.format(name, district, draw.randint(900, 1900), draw.randint(100, 90_000))


def test_a_template_of_distinct_facts_is_no_heap_of_duplicates() -> None:
    draw = random.Random(5)
    towns = [town(draw) for _ in range(200)]
    near, repeated = repeated_rows(numbered(towns))
    assert len(near) > 0.5 * len(towns), "word overlap alone drops most of them, as was seen"
    assert repeated == []


def test_rows_that_repeat_the_facts_too_are_found_among_them() -> None:
    draw = random.Random(6)
    towns = [town(draw) for _ in range(150)]
    copies = [towns[n] for n in (3, 50, 50, 149)]
    edited = towns[7].replace("census it has", "census it still has").replace("mills", "workshops")
    near, repeated = repeated_rows(numbered([*towns, *copies, edited]))
    assert repeated == [150, 151, 152, 153, 154]
    assert set(repeated) < set(near)


def test_rows_that_combine_few_values_in_a_new_way_are_distinct() -> None:
    """Each value alone is in many rows, and each pair of them in one."""
    combined = [FRAME.format(a, b, 1200, 5000) for a in WORDS[:15] for b in WORDS[30:45]]
    near, repeated = repeated_rows(numbered([*combined, combined[40]]))
    assert len(near) > 100
    assert repeated == [225]


def test_copies_of_one_text_are_duplicates_though_their_words_are_a_frame() -> None:
    draw = random.Random(7)
    text = sentences(draw, 120)
    edited = []
    for _ in range(20):
        words = text.split()
        words[draw.randrange(120)] = draw.choice(WORDS).upper()
        edited.append(" ".join(words))
    near, repeated = repeated_rows(numbered([text, *edited]))
    assert near == repeated == list(range(1, 21))


def test_texts_of_shared_sentences_in_another_choice_are_no_duplicates() -> None:
    draw = random.Random(8)
    pool = [sentences(draw, 12) for _ in range(30)]
    texts = [" ".join(draw.sample(pool, 8)) for _ in range(60)]
    near, repeated = repeated_rows(numbered(texts))
    assert near == repeated == []


def test_plain_pairs_of_near_duplicates_are_found_both_ways() -> None:
    draw = random.Random(9)
    texts = [sentences(draw, 100) for _ in range(40)]
    twin = texts[5].split()
    twin[50] = "other"
    near, repeated = repeated_rows(numbered([*texts, " ".join(twin)]))
    assert near == repeated == [40]
