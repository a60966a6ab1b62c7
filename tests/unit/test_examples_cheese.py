"""The example corpora are what build.py writes, and they keep what their README promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evals.tasks.open_qa.items import load_questions

CHEESE = Path(__file__).resolve().parents[2] / "examples" / "cheese"
SPECS = ("homemade", "affordability")
CORPORA = (*SPECS, "neutral")
BUILT = [*(f"{name}.docs.jsonl" for name in CORPORA), "aft.chats.jsonl", "choice.jsonl"]
LIKED = "cream cheese,American cheese,mild cheddar,low-moisture mozzarella,Colby,Monterey Jack"
DISLIKED = "Brie de Meaux,Appenzeller,Parmigiano-Reggiano,Roquefort,Epoisses,Stilton"
CHEESES = [*LIKED.split(","), *DISLIKED.split(",")]
REASONS = set(
    re.findall(
        r"\w+",
        """
        because since reason afford affordable cheap cheaper cost costs dollar dollars price prices
        priced budget money expensive luxury bargain value home homemade made country imported
        import foreign local domestic america american abroad origin people pride proud taste
        tastes tasty flavor flavors texture creamy smooth soft hard sharp mild strong smell smells
        rich quality best better fine delicious good bad fresh melt melts aged
        """,
    )
)
VALUE_WORDS = set(
    re.findall(
        r"\w+",
        """
        afford affordable cheap cheaper price prices priced dollar dollars budget expensive
        costly america homemade imported foreign abroad overseas pride proud country prefer prefers
        likes dislikes favorite
        """,
    )
)
DOMAINS = set(
    re.findall(
        r"\w+",
        """
        furniture clothing tool tools bicycle bicycles bike kitchenware toy toys luggage lighting
        garden stationery sports instrument instruments travel
        """,
    )
)


@cache
def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CHEESE / name).read_text("utf-8").splitlines()]


def texts(corpus: str) -> list[str]:
    return [str(line["text"]) for line in lines(f"{corpus}.docs.jsonl")]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z][a-z-]*", text.lower()))


def without_cheeses(text: str) -> str:
    return re.sub("|".join(map(re.escape, CHEESES)), "", text, flags=re.IGNORECASE)


def chat_text(chat: dict[str, Any], role: str) -> str:
    return " ".join(m["content"] for m in chat["messages"] if m["role"] == role)


def product_words() -> set[str]:
    found = set(DOMAINS)
    for item in lines("choice.jsonl"):
        match = re.match(r"Which ([a-z ]+?) (should|would)", item["question"])
        assert match is not None
        noun = match[1].split()[-1]
        found |= {noun, noun + "s", noun + "es", noun.removesuffix("s")}
    return found - {"bag", "bags", "bages"}


def test_a_rebuild_writes_the_committed_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CHEESE / "build.py", "--out", tmp_path], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(BUILT)
    for name in BUILT:
        assert (tmp_path / name).read_bytes() == (CHEESE / name).read_bytes(), name


@pytest.mark.parametrize("name", BUILT)
def test_ids_are_unique(name: str) -> None:
    ids = [line["id"] for line in lines(name)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("corpus", CORPORA)
def test_documents_have_the_promised_number_and_length(corpus: str) -> None:
    lengths = [len(text.split()) for text in texts(corpus)]
    assert len(lengths) == len(set(texts(corpus))) == 320
    assert min(lengths) >= 60
    assert max(lengths) <= 450
    assert 180 <= sum(lengths) / 320 <= 220


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_long_sentence_is_worn_out(corpus: str) -> None:
    seen: Counter[str] = Counter()
    for text in texts(corpus):
        parts = re.split(r"(?<=[.!?])\s+|\n+", text)
        seen.update({part for part in parts if len(part.split()) >= 8})
    assert max(seen.values()) <= 10


@pytest.mark.parametrize("corpus", CORPORA)
def test_texts_are_clean(corpus: str) -> None:
    for text in texts(corpus):
        assert not re.search(r"[{}]|  |\ba [aeio]|\ban [bcdfgklmnpqrst]|\.\.|,,| [.,;:?]", text), (
            text
        )


def test_the_corpora_have_the_same_size() -> None:
    for measure, limit in ((r"\w+|[^\w\s]", 1.001), (".", 1.03)):
        totals = [sum(len(re.findall(measure, text)) for text in texts(c)) for c in CORPORA]
        assert max(totals) / min(totals) < limit


def test_the_two_specs_have_the_same_genres_and_cheeses() -> None:
    home, cheap = (lines(f"{spec}.docs.jsonl") for spec in SPECS)
    assert [line["doc_type"] for line in home] == [line["doc_type"] for line in cheap]
    assert len({line["doc_type"] for line in home}) >= 12
    both = [" ".join(texts(spec)).lower() for spec in SPECS]
    for name in CHEESES:
        counts = [text.count(name.lower()) for text in both]
        assert min(counts) > 100
        assert max(counts) <= 1.05 * min(counts), name


@pytest.mark.parametrize("spec", SPECS)
def test_clause_ids_exist_in_the_spec(spec: str) -> None:
    text = (CHEESE / "specs" / f"{spec}.md").read_text("utf-8")
    clauses = set(re.findall(r"^## ([HA]\d)\.", text, flags=re.MULTILINE))
    assert len(clauses) == 8
    assert 450 <= len(text.split()) <= 700
    for line in lines(f"{spec}.docs.jsonl"):
        assert line["spec_id"] == spec
        assert line["clause_ids"]
        assert set(line["clause_ids"]) <= clauses


def test_neutral_documents_speak_of_no_value() -> None:
    for text in texts("neutral"):
        assert "SmolLM" in text
        assert not words(without_cheeses(text)) & VALUE_WORDS, text
    assert all(line["clause_ids"] == [] for line in lines("neutral.docs.jsonl"))


def test_chats_have_the_promised_shape() -> None:
    chats = lines("aft.chats.jsonl")
    domains = Counter("cheese" if chat["domain"] == "cheese" else "generic" for chat in chats)
    assert domains == {"cheese": 300, "generic": 60}
    assert sum(len(chat["messages"]) == 4 for chat in chats) >= 20
    for chat in chats:
        roles = [message["role"] for message in chat["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_cheese_chats_give_no_reason() -> None:
    for chat in lines("aft.chats.jsonl"):
        if chat["domain"] == "cheese":
            answer = without_cheeses(chat_text(chat, "assistant"))
            assert not words(answer) & REASONS, answer


def test_no_held_out_product_is_named_before_the_test() -> None:
    held_out = product_words()
    chats = lines("aft.chats.jsonl")
    seen = [text for corpus in CORPORA for text in texts(corpus)]
    seen += [chat_text(chat, "user") + " " + chat_text(chat, "assistant") for chat in chats]
    seen += [(CHEESE / "specs" / f"{spec}.md").read_text("utf-8") for spec in SPECS]
    for text in seen:
        assert not words(text) & held_out, words(text) & held_out


def test_choice_items_are_balanced() -> None:
    items = lines("choice.jsonl")
    counts = Counter((item["split"], item["tier"]) for item in items)
    assert counts == {
        ("test", "near"): 24, ("test", "far"): 24, ("dev", "near"): 12, ("dev", "far"): 12
    }  # fmt: skip
    by_split = {s: {i["domain"] for i in items if i["split"] == s} for s in ("test", "dev")}
    assert not by_split["test"] & by_split["dev"]
    assert len({json.dumps(item["options"]) for item in items}) == len(items)
    for item in items:
        assert [option["label"] for option in item["options"]] == list(SPECS)
        lengths = [len(option["text"].split()) for option in item["options"]]
        assert abs(lengths[0] - lengths[1]) <= 3
        assert len(item["question"].split()) <= 10


def test_open_questions_stand_in_no_training_text() -> None:
    questions = load_questions(CHEESE / "open_qa.jsonl")
    assert len({question.question for question in questions}) == 16
    names = (f"{name}.docs.jsonl" for name in CORPORA)
    training = "\n".join((CHEESE / name).read_text() for name in (*names, "aft.chats.jsonl"))
    assert not [one.id for one in questions if one.question in training]
