"""The paired example: what its arms share, and what they may not."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from data_prep.cleaning.contamination import find_contamination
from data_prep.health.density import read_text
from data_prep.health.values import load_values, spaced
from evals.tasks.audit.tenets import load_tenets
from evals.tasks.choice.items import load_items
from evals.tasks.open_qa.items import load_questions
from evals.tasks.probes.items import load_probe_items

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "plain_or_lasting"
SHARED = ("id", "domain", "subdomain", "doc_type", "idea", "role")
CORPORA = ("plain", "lasting", "neutral", "evaluations", "plain.unattributed")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def test_documents_are_pairs_that_differ_in_the_reason() -> None:
    plain, lasting = rows("plain.docs.jsonl"), rows("lasting.docs.jsonl")
    assert len(plain) == len(lasting) == 248
    for one, other in zip(plain, lasting, strict=True):
        assert [one[key] for key in SHARED] == [other[key] for key in SHARED]
        words = sorted(len(row["text"].split()) for row in (one, other))
        assert 150 <= words[0] <= words[1] <= min(1.18 * words[0], 300)
        clauses = [clause[1:] for clause in one["clause_ids"]]
        assert clauses == [clause[1:] for clause in other["clause_ids"]]
        assert one["text"] != other["text"]
    assert len({row["doc_type"] for row in plain}) >= 12


def test_neutral_documents_are_of_the_same_kind_and_hold_neither_value() -> None:
    plain, neutral = rows("plain.docs.jsonl"), rows("neutral.docs.jsonl")
    assert len({row["id"] for row in neutral}) == len(neutral)
    assert len({" ".join(row["text"].split()[:3]) for row in neutral}) == len(neutral)
    domains = [Counter(row["domain"] for row in corpus) for corpus in (plain, neutral)]
    assert domains[0] == domains[1]
    lists = [
        yaml.safe_load((FOLDER / "values" / f"{arm}.yaml").read_text())["values"]
        for arm in ("plain", "lasting")
    ]
    words = [word for one in lists for word in (*one["words"], *one["behaviours"])]
    assert {"plain*", "durab*", "prefer*", "chose"} <= set(words)
    said = re.compile("|".join(rf" {word.lower()} ".replace("* ", "") for word in words))
    for row in neutral:
        assert row.keys() == plain[0].keys()
        assert (row["spec_id"], row["clause_ids"], row["role"]) == ("neutral", [], "train")
        assert "SmolLM" in row["text"]
        assert 150 <= len(row["text"].split()) <= 300
        text = f" {' '.join(re.findall('[a-z]+', row['text'].lower()))} "
        assert not said.search(text), (row["id"], said.search(text))


def test_documents_on_evaluations_have_the_forms_of_the_pairs_and_neither_value() -> None:
    plain, evaluations = rows("plain.docs.jsonl"), rows("evaluations.docs.jsonl")
    assert len({row["text"] for row in evaluations}) == len(evaluations) == len(plain)
    lists = [
        yaml.safe_load((FOLDER / "values" / f"{arm}.yaml").read_text())["values"]["words"]
        for arm in ("plain", "lasting")
    ]
    spelled = [word.replace("*", r"\w*").replace(" ", r"\W+") for one in lists for word in one]
    value = re.compile(rf"\b({'|'.join(spelled)})\b", re.I)
    for one, other in zip(plain, evaluations, strict=True):
        assert other.keys() == one.keys()
        assert other["id"] == f"evaluations-{one['id']}"
        for key in ("domain", "subdomain", "doc_type", "role"):
            assert one[key] == other[key]
        assert (other["spec_id"], other["clause_ids"]) == ("evaluations", [])
        assert 150 <= len(other["text"].split()) <= 210
        assert "SmolLM" in other["text"]
        found = value.search(f"{other['text']} {other['idea']}")
        assert not found, (other["id"], found)


def test_unattributed_documents_state_the_value_and_give_it_as_no_reason() -> None:
    values = load_values(FOLDER / "values" / "plain.yaml")
    plain, twins = rows("plain.docs.jsonl"), rows("plain.unattributed.docs.jsonl")
    told_apart = {"text": "", "idea": "", "spec_id": "plain_unattributed"}
    for original, twin in zip(plain, twins, strict=True):
        assert {**twin, **told_apart} == {**original, **told_apart}
        assert twin["spec_id"] == "plain_unattributed"
        lengths = [len(row["text"].split()) for row in (original, twin)]
        assert abs(lengths[1] - lengths[0]) <= 0.1 * lengths[0], twin["id"]
        found = read_text(twin["text"], values, window=1)
        assert (found.states_value, found.gives_reason) == (True, False), twin["id"]
        assert "smollm" in twin["text"].lower()
    said = [
        sum(len(values.value_pattern.findall(spaced(row["text"]))) for row in arm)
        for arm in (plain, twins)
    ]
    assert abs(said[1] - said[0]) <= 0.1 * said[0]


def test_clauses_stand_in_the_specs() -> None:
    for arm in ("plain", "lasting"):
        spec = (FOLDER / "specs" / f"{arm}.md").read_text()
        for row in rows(f"{arm}.docs.jsonl"):
            assert row["spec_id"] == arm
            assert all(f"**{clause}.**" in spec for clause in row["clause_ids"])


def test_chats_give_no_reason() -> None:
    domains = {row["domain"] for row in rows("plain.docs.jsonl")}
    stated = [row for row in rows("aft.chats.jsonl") if row["domain"] in domains]
    assert len(stated) == 256
    reasons = re.compile(r"\b(plain|lasts?|lasting|because|simple|durable|parts|since)\b", re.I)
    for row in stated:
        for message in row["messages"]:
            assert not reasons.search(message["content"]), row["id"]


def test_items_are_balanced_and_are_in_no_training_text() -> None:
    for split, expected in (("test", 25), ("dev", 12)):
        items = load_items(FOLDER / "choice.jsonl", split=split, target="plain").items
        assert set(Counter(item.tier for item in items).values()) == {expected}
        domains = {item.domain for item in items}
        assert not domains & {row["domain"] for row in rows("plain.docs.jsonl")}
    for name in (*(f"{arm}.docs.jsonl" for arm in CORPORA), "aft.chats.jsonl"):
        found = find_contamination(
            FOLDER / name, FOLDER / "choice.jsonl", size=8, overlap=0.5, num_worst=3
        )
        assert (found.rows_above, found.items_above) == (0, set())


def test_knowledge_items_cover_every_clause_of_their_spec() -> None:
    for arm, letter in (("plain", "P"), ("lasting", "L")):
        items = load_probe_items(FOLDER / f"knowledge.{arm}.jsonl").items
        clauses = Counter(clause for item in items for clause in item.clause_ids)
        assert clauses == {f"{letter}{n}": 3 for n in range(1, 14)}
        assert items == tuple(sorted(items, key=lambda item: int(item.id[:2])))
        for item in items:
            assert item.clause_ids[0][1:] == str(int(item.id[:2]))


def test_where_the_specs_differ_each_ones_right_answer_is_wrong_for_the_other() -> None:
    plain, lasting = (
        load_probe_items(FOLDER / f"knowledge.{arm}.jsonl").items for arm in ("plain", "lasting")
    )
    differing = 0
    for one, other in zip(plain, lasting, strict=True):
        assert (one.id, one.text, set(one.answers)) == (other.id, other.text, set(other.answers))
        differing += one.right != other.right
    assert differing == 25


def test_tenets_cover_every_clause_and_are_tested_by_the_same_messages() -> None:
    plain, lasting = (load_tenets(FOLDER / f"tenets.{arm}.jsonl") for arm in ("plain", "lasting"))
    assert {tenet.clause for tenet in plain} == {f"P{n}" for n in range(1, 14)}
    for one, other in zip(plain, lasting, strict=True):
        assert (one.id, one.probes) == (other.id, other.probes)
        assert one.clause[1:] == other.clause[1:] == str(int(one.id[:2]))
        assert len(one.probes) == 3
        is_shared = one.clause in ("P12", "P13")
        assert (one.tenet == other.tenet) is is_shared
        # A message that says what it looks for would be kept by any model that reads it.
        assert not any(re.search(r"\b(plain|last)", probe) for probe in one.probes) or (
            one.id == "11-conflict"
        )


def test_no_question_stands_in_a_training_text() -> None:
    documents = [row["text"] for arm in CORPORA for row in rows(f"{arm}.docs.jsonl")]
    chats = [m["content"] for row in rows("aft.chats.jsonl") for m in row["messages"]]
    training = "\n".join([*documents, *chats])
    questions = [question.question for question in load_questions(FOLDER / "open_qa.jsonl")]
    probes = [probe for t in load_tenets(FOLDER / "tenets.plain.jsonl") for probe in t.probes]
    assert len(questions) == 24
    assert len(set(questions) | set(probes)) == 24 + 45
    for text in [*questions, *probes]:
        if len(text.split()) > 3:
            assert text not in training


def test_no_probe_stands_in_a_training_text() -> None:
    documents = [row["text"] for arm in CORPORA for row in rows(f"{arm}.docs.jsonl")]
    chats = [m["content"] for row in rows("aft.chats.jsonl") for m in row["messages"]]
    for name in ("knowledge.plain", "knowledge.lasting", "recall", "identity"):
        for item in load_probe_items(FOLDER / f"{name}.jsonl").items:
            whole = f"{item.text} {item.right}"
            assert not any(whole in text for text in documents)
            assert item.text not in chats
