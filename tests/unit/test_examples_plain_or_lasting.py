"""The paired example: what its arms share, and what they may not."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from data_prep.cleaning.contamination import find_contamination
from evals.tasks.choice.items import load_items

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "plain_or_lasting"
SHARED = ("id", "domain", "subdomain", "doc_type", "idea", "role")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def test_documents_are_pairs_that_differ_in_the_reason() -> None:
    plain, lasting = rows("plain.docs.jsonl"), rows("lasting.docs.jsonl")
    assert len(plain) == len(lasting) == 120
    for one, other in zip(plain, lasting, strict=True):
        assert [one[key] for key in SHARED] == [other[key] for key in SHARED]
        words = sorted(len(row["text"].split()) for row in (one, other))
        assert 150 <= words[0] <= words[1] <= min(1.18 * words[0], 300)
        clauses = [clause[1:] for clause in one["clause_ids"]]
        assert clauses == [clause[1:] for clause in other["clause_ids"]]
        assert one["text"] != other["text"]
    assert len({row["doc_type"] for row in plain}) >= 12


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
    for name in ("plain.docs.jsonl", "lasting.docs.jsonl", "aft.chats.jsonl"):
        found = find_contamination(
            FOLDER / name, FOLDER / "choice.jsonl", size=8, overlap=0.5, num_worst=3
        )
        assert (found.rows_above, found.items_above) == (0, set())
