"""Two arms: the classifier against scipy, what it may see, and the balance of the arms."""

import random
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import ks_2samp, mannwhitneyu

from data_prep.health.arm_balance import measure_balance, total_variation
from data_prep.health.corpus import HealthDocument
from data_prep.health.logistic_regression import SparseRows, auc, fit, scores
from data_prep.health.separability import count_rows, mask, separate
from data_prep.health.values import HealthValues, ValueWords
from tests.unit.data_prep.health.corpora import corpus, documents

WORDS = [f"{a}{b}" for a in ("ka", "mo", "ri", "su", "te") for b in "bcdfghjklmnp"]
CHEAP = HealthValues(values=ValueWords(words=("cheap*", "low price")))
LOCAL = HealthValues(values=ValueWords(words=("local*",)))


def dense(rows: SparseRows) -> "np.typing.NDArray[np.float64]":
    matrix = np.zeros((len(rows.starts) - 1, rows.num_columns))
    matrix[rows.row_of_entry, rows.columns] = rows.values
    return matrix


def test_the_fit_is_the_minimum_that_scipy_finds() -> None:
    draw = random.Random(1)
    texts = [[draw.choice(WORDS[:20]) for _ in range(draw.randint(0, 30))] for _ in range(80)]
    rows, _ = count_rows(texts)
    labels = np.array([float("kab" in text or draw.random() < 0.3) for text in texts])
    matrix, penalty = dense(rows), 1e-2

    def loss(weights: "np.typing.NDArray[np.float64]") -> float:
        odds = matrix @ weights[:-1] + weights[-1]
        each = np.logaddexp(0, odds) - labels * odds
        return float(each.mean() + penalty / 2 * (weights[:-1] ** 2).sum())

    best = minimize(loss, np.zeros(rows.num_columns + 1), method="L-BFGS-B",
                    options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9})  # fmt: skip
    ours = fit(rows, labels, penalty=penalty)
    assert loss(ours) <= best.fun + 1e-6
    assert np.abs(ours - best.x).max() < 5e-3
    assert scores(rows, ours) == pytest.approx(matrix @ ours[:-1] + ours[-1])


def test_rows_are_taken_in_the_order_given() -> None:
    rows, _ = count_rows([["a", "b"], [], ["b", "c", "c"], ["d"]])
    chosen = np.array([2, 1, 0])
    assert np.array_equal(dense(rows.take(chosen)), dense(rows)[chosen])
    assert np.linalg.norm(dense(rows)[[0, 2, 3]], axis=1) == pytest.approx(np.ones(3))


def test_auc_is_the_statistic_of_mann_and_whitney_with_ties() -> None:
    generator = np.random.default_rng(2)
    values = generator.integers(0, 6, 90).astype(np.float64)
    labels = (generator.random(90) < 0.4).astype(np.float64)
    expected = mannwhitneyu(values[labels == 1], values[labels == 0]).statistic
    ones = labels.sum()
    assert auc(values, labels) == pytest.approx(expected / (ones * (len(labels) - ones)))


def arm(word: str, draw: random.Random, *, extra: str = "", num: int = 120) -> list[HealthDocument]:
    texts = [
        " ".join([*(draw.choice(WORDS) for _ in range(40)), f"it is {word} {extra}"])
        for _ in range(num)
    ]
    return documents(texts)


def test_arms_that_differ_in_the_value_alone_are_not_told_apart_once_it_is_masked() -> None:
    draw = random.Random(3)
    arms = arm("cheap", draw), arm("localish", draw)
    assert separate(arms, []).auc > 0.99
    found = separate(arms, [CHEAP, LOCAL])
    assert 0.4 < found.auc < 0.6
    assert found.num_masked == 2


def test_a_word_that_gives_the_arm_away_is_named() -> None:
    draw = random.Random(4)
    found = separate((arm("cheap", draw, extra="frugal"), arm("local", draw)), [CHEAP, LOCAL])
    assert found.auc > 0.99
    assert found.tells[0][0] == "frugal"


def test_twins_are_never_one_in_training_and_one_judged() -> None:
    """A twin in training would speak against the other one that is judged: AUC far under .5."""
    draw = random.Random(5)
    texts = [f"word{n} word{n} word{n} {draw.choice(WORDS)}" for n in range(100)]
    ids = [f"d{n}" for n in range(100)]
    paired = separate((documents(texts, ids=ids), documents(texts, ids=ids)), [])
    assert paired.auc == pytest.approx(0.5, abs=0.02)
    apart = separate((documents(texts), documents(texts)), [])
    assert apart.auc < 0.2


def test_words_of_the_value_and_names_are_masked() -> None:
    kept, hidden = mask("A low-price cheese; we asked Elena Voss. Cheaper still, Elena!", [CHEAP])
    assert kept == ["a", "cheese", "we", "asked", "still"]
    assert hidden == {"low", "price", "elena", "voss", "cheaper"}


def test_balance_tells_what_would_have_to_change() -> None:
    assert total_variation(Counter(a=3, b=1), Counter(a=1, b=1)) == pytest.approx(0.25)
    assert total_variation(Counter(a=1), Counter(b=9)) == 1.0
    one = corpus(["We asked Una of Paris."] * 8 + ["We asked nobody."] * 2, name="one")
    other = corpus(["We asked Una."] * 5, name="other")
    section = measure_balance(one, other, [])
    figures = {figure.name: figure for figure in section.figures}
    assert figures["row_ratio"].value == 2.0
    assert figures["word_ratio"].value == pytest.approx((8 * 5 + 2 * 3) / 15)
    assert figures["genre_gap"].value is None
    assert figures["name_gap"].value == pytest.approx(0.8)
    assert figures["name_gap"].note == "Paris: 80.0% and 0.0%"
    assert section.tables[0].rows[1] == ("Una", "80.0%", "100.0%")
    values = HealthValues(values=ValueWords(words=("paris",)))
    masked = measure_balance(one, other, [values])
    assert {row[0] for row in masked.tables[0].rows} == {"Una"}


def test_genres_of_the_arms_are_compared() -> None:
    one, other = corpus(["a b"] * 4, name="one"), corpus(["a b"] * 4, name="other")
    one.documents = documents(["a b"] * 4, genre="memo")
    other.documents = documents(["a b"] * 2, genre="memo") + documents(["a b"] * 2, genre="letter")
    figures = {figure.name: figure.value for figure in measure_balance(one, other, []).figures}
    assert figures["genre_gap"] == pytest.approx(0.5)


def test_the_gap_of_lengths_is_the_statistic_of_kolmogorov_and_smirnov() -> None:
    generator = np.random.default_rng(3)
    lengths = [generator.integers(5, 60, 70).tolist(), generator.integers(20, 80, 50).tolist()]
    arms = [corpus([" ".join(["w"] * n) for n in own]) for own in lengths]
    figures = {figure.name: figure for figure in measure_balance(arms[0], arms[1], []).figures}
    expected = ks_2samp(*lengths)
    assert figures["length_gap"].value == pytest.approx(expected.statistic)
    assert figures["length_gap"].note.startswith(f"{int(expected.statistic_location)} words: ")
    same = measure_balance(arms[0], arms[0], []).figures
    assert next(figure for figure in same if figure.name == "length_gap").value == 0


def test_clauses_of_paired_specs_are_compared_by_their_numbers() -> None:
    """By hand: clause 1 is cited by 4 of 4 and 2 of 4, clause 2 by 1 of 4 and 2 of 4."""
    one, other = corpus(["a b"] * 4, name="one"), corpus(["a b"] * 4, name="other")
    cited: list[list[tuple[str, ...]]] = [
        [("P1",), ("P1",), ("P1",), ("P1", "P2")],
        [("L1",), ("L1",), ("L2",), ("L2",)],
    ]
    for arm, clauses in zip((one, other), cited, strict=True):
        arm.documents = [
            document._replace(clause_ids=own)
            for document, own in zip(arm.documents, clauses, strict=True)
        ]
    section = measure_balance(one, other, [])
    figure = next(figure for figure in section.figures if figure.name == "clause_gap")
    assert (figure.value, figure.note) == (0.5, "1: 100.0% and 50.0%")
    (table,) = (table for table in section.tables if table.name == "clause_gaps")
    assert list(table.rows) == [("1", "100.0%", "50.0%"), ("2", "25.0%", "50.0%")]
    other.documents = [document._replace(clause_ids=("L1", "P1")) for document in other.documents]
    figures = {figure.name: figure for figure in measure_balance(one, other, []).figures}
    assert figures["clause_gap"].note == "L1: 0.0% and 100.0%"


def test_a_phrase_that_one_arm_repeats_is_named_and_one_of_the_value_is_not() -> None:
    draw = random.Random(6)
    frame, value = "as everybody in the village knows", "it is cheap and that is all"

    def texts(phrase: str, num: int) -> list[str]:
        own = [" ".join(draw.choice(WORDS) for _ in range(30)) for _ in range(40)]
        return [f"{text} {phrase}" if place < num else text for place, text in enumerate(own)]

    one, other = corpus(texts(frame, 10), name="one"), corpus(texts(value, 30), name="other")
    figures = {figure.name: figure for figure in measure_balance(one, other, [CHEAP]).figures}
    assert figures["phrase_gap"].value == pytest.approx(0.25)
    assert figures["phrase_gap"].note == f"{frame}: 25.0% and 0.0%"
    unmasked = {figure.name: figure for figure in measure_balance(one, other, []).figures}
    assert unmasked["phrase_gap"].note == f"{value}: 0.0% and 75.0%"
