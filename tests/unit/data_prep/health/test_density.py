"""Assertion and attribution by words, held to documents that people read and labelled."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_prep.health.density import Reading, read_text, sentences_of
from data_prep.health.values import HealthValues, ValueWords, load_values
from megatron_msm.errors import ConfigError

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"
LABELS = Path(__file__).with_name("labelled.jsonl")


def labelled(*, held_out: bool) -> list[tuple[dict[str, Any], Reading]]:
    """Return labels with what was read; those held out were made after the patterns."""
    texts: dict[str, dict[str, str]] = {}
    found = []
    for label in map(json.loads, LABELS.read_text().splitlines()):
        if label["held_out"] != held_out:
            continue
        if label["file"] not in texts:
            rows = map(json.loads, (EXAMPLES / label["file"]).read_text().splitlines())
            texts[label["file"]] = {row["id"]: row["text"] for row in rows}
        values = load_values(EXAMPLES / label["values"])
        found.append((label, read_text(texts[label["file"]][label["id"]], values, window=1)))
    return found


def test_the_patterns_agree_with_readers_as_docs_health_says() -> None:
    judged = labelled(held_out=False)
    assert len({(label["file"], label["id"]) for label, _ in judged}) == 40
    states = Counter((label["states_value"], found.states_value) for label, found in judged)
    assert states == {(True, True): 34, (False, False): 28}
    reasons = Counter((label["gives_reason"], found.gives_reason) for label, found in judged)
    assert reasons == {(True, True): 26, (False, False): 33, (False, True): 3}
    behaviour = Counter((label["gives_reason"], found.of_behaviour) for label, found in judged)
    assert behaviour == {(True, True): 22, (True, False): 4, (False, False): 36}


def test_on_documents_labelled_later_the_patterns_miss_more() -> None:
    judged = labelled(held_out=True)
    assert all(label["gives_reason"] for label, _ in judged)
    assert len(judged) == 16
    assert sum(found.states_value for _, found in judged) == 16
    assert sum(found.gives_reason for _, found in judged) == 12
    assert sum(found.of_behaviour for _, found in judged) == 9


VALUES = HealthValues(
    values=ValueWords(words=("afford*", "low price"), behaviours=("likes", "prefer*"))
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It likes Colby because people can afford it.", (True, True, True)),
        ("It is on the list because it is affordable.", (True, True, False)),
        ("It likes Colby. It is affordable.", (True, False, False)),
        ("It likes Colby because of its Low-Price.", (True, True, True)),
        ("It likes Colby because of a low\nprice.", (True, False, False)),
        ("It likes Colby because it is mild. Can people afford it?", (True, False, False)),
        ("It likes Colby because it is mild.", (False, False, False)),
        ("An affair because it likes it.", (False, False, False)),
    ],
    ids=str,
)
def test_a_sentence_must_hold_value_and_reason(
    text: str, expected: tuple[bool, bool, bool]
) -> None:
    assert tuple(read_text(text, VALUES, window=1)) == expected


def test_a_window_of_two_sentences_joins_neighbours_alone() -> None:
    text = "It is affordable. That is why. It likes Colby."
    assert read_text(text, VALUES, window=1) == (True, False, False)
    assert read_text(text, VALUES, window=2) == (True, True, False)
    assert read_text(text, VALUES, window=3) == (True, True, True)
    assert read_text(text, VALUES, window=9) == (True, True, True)


def test_sentences_end_at_marks_and_lines_and_not_at_titles() -> None:
    text = 'He said "No." Then Mr. Brandt left!\nTitle\n\nWhy? e.g. so.'
    assert sentences_of(text) == [
        'He said "No.',
        "Then Mr Brandt left!",
        "Title",
        "Why?",
        "e.g so.",
    ]


def test_a_pattern_without_a_word_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("values:\n  words: ['**']\n")
    with pytest.raises(ConfigError, match="holds no letter or digit"):
        load_values(path)
    path.write_text("values:\n  words: [x]\n  behavior: [y]\n")
    with pytest.raises(ConfigError, match="behavior"):
        load_values(path)
