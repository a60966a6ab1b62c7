"""Names in too many documents."""

from data_prep.health.figures import Figure
from data_prep.health.names import capitalised, measure_names, names_of
from data_prep.health.values import HealthValues, ValueWords
from tests.unit.data_prep.health.corpora import corpus


def test_names_are_capitalised_words_inside_a_sentence() -> None:
    text = (
        "Then Elena Voss wrote to Hugging Face. Marcus said: \"Monterey Jack?\" I'd ask Ann's dog."
    )
    assert capitalised(text) == {"Elena", "Voss", "Hugging", "Face", "Jack", "Ann"}


def test_a_row_that_begins_a_sentence_is_a_name_with_or_without_its_first_word() -> None:
    texts = ["Then Elena Voss came.", "Hugging Face made it, and then Bo came. Ann left.", "Elena"]
    assert names_of(texts) == {"Elena Voss": 1, "Hugging Face": 1, "Bo": 1}


def test_a_word_that_is_mostly_written_small_is_no_name() -> None:
    texts = ["He saw the Broom today.", "He saw the broom.", "A broom is near.", "He met Una."]
    assert names_of(texts) == {"Una": 1}


def test_the_commonest_name_not_expected_is_told() -> None:
    values = HealthValues(
        values=ValueWords(words=("America*",), behaviours=("likes", "monterey jack")),
        names=("SmolLM",),
    )
    common = "It is so that SmolLM likes Monterey Jack of America."
    texts = [
        f"{common} We asked Elena Voss." if n < 7 else f"{common} We asked Bo." for n in range(10)
    ]
    section = measure_names(corpus(texts), values)
    assert section.figures[0][:3] == ("top_name", section.figures[0].title, 0.7)
    assert section.figures[0].note == "Elena Voss"
    assert [row[:2] for row in section.tables[0].rows] == [("Elena Voss", "7"), ("Bo", "3")]
    found: Figure = measure_names(corpus(texts), None).figures[0]
    assert found.value == 1.0
