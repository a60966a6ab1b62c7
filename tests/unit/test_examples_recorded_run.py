"""The paired example's recorded run: every step of both pipelines, replayed."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from data_prep.cleaning.contamination import find_contamination
from data_prep.generate.run import Made, make_chats, make_documents, opened, resolved_paths
from data_prep.generate.settings import GenerateConfig
from evals.tasks.probes.items import load_probe_items
from megatron_msm.config.load import load_config

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "plain_or_lasting"
ARMS = ("plain", "lasting")
REFUSED = {
    ("plain", "clock-05"): "judge",
    ("lasting", "clock-05"): "pair",
    ("plain", "cleaning-04"): "pair",
    ("lasting", "cleaning-04"): "judge",
    ("plain", "cleaning-14"): "judge",
    ("lasting", "cleaning-14"): "judge",
    ("plain", "heat-07"): "pair",
    ("lasting", "heat-07"): "judge",
    ("plain", "garden-04"): "judge",
    ("lasting", "garden-04"): "judge",
    ("plain", "workshop-11"): "judge",
    ("lasting", "workshop-11"): "judge",
}
REFUSED_CHATS = {
    "Tell me what you like about an empty jar.": "judge",
    "Fly screen, plug-in repellent or a fly swatter?": "judge",
    "Is there a household thing you used to prefer and no longer do?": "judge",
}


class Run(NamedTuple):
    """What the recording was replayed to."""

    out: Path
    documents: Made
    chats: Made


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replayed(out: Path) -> Run:
    file = FOLDER / "generate.yaml"
    config = resolved_paths(load_config(file, GenerateConfig, [f"out={out}"]), file)
    with opened(config) as opened_run:
        documents = make_documents(opened_run)
    with opened(config) as opened_run:
        return Run(out, documents, make_chats(opened_run))


def recorded_rows(arm: str) -> list[dict[str, Any]]:
    """The committed documents that the run replays: a domain's first 15, not those from 21 on."""
    return [row for row in rows(FOLDER / f"{arm}.docs.jsonl") if int(row["id"][-2:]) <= 15]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Replay the run once."""
    return replayed(tmp_path_factory.mktemp("recorded"))


def test_documents_are_the_committed_ones_and_eight_further_pairs(run: Run) -> None:
    new = []
    for arm in ARMS:
        committed = {row["text"]: row for row in recorded_rows(arm)}
        kept = rows(run.out / "documents" / f"{arm}.jsonl")
        assert len(kept) == 122
        new.append({row["id"] for row in kept if row["text"] not in committed})
        for row in kept:
            if row["id"] not in new[-1]:
                source = committed.pop(row["text"])
                assert (row["idea"], row["doc_type"]) == (source["idea"], source["doc_type"])
                assert set(source["clause_ids"]) < set(row["clause_ids"])
        assert {source["id"] for source in committed.values()} == {
            name for refused_arm, name in REFUSED if refused_arm == arm
        }
    assert new[0] == new[1]
    assert len({name.split("/")[0] for name in new[0]}) == len(new[0]) == 8


def test_documents_are_pairs_of_like_length_in_many_genres(run: Run) -> None:
    plain, lasting = (rows(run.out / "documents" / f"{arm}.jsonl") for arm in ARMS)
    assert [row["id"] for row in plain] == [row["id"] for row in lasting]
    assert len({row["doc_type"] for row in plain}) == 42
    for one, other in zip(plain, lasting, strict=True):
        words = sorted(len(row["text"].split()) for row in (one, other))
        assert 150 <= words[0] <= words[1] <= min(1.18 * words[0], 260)


def test_what_is_refused_is_refused_with_its_twin(run: Run) -> None:
    found = {}
    for arm in ARMS:
        names = {row["text"]: row["id"] for row in rows(FOLDER / f"{arm}.docs.jsonl")}
        for row in rows(run.out / "rejects" / f"documents-{arm}.jsonl"):
            found[arm, names[row["text"]]] = row["gate"]
    assert found == REFUSED


def test_counts_are_those_of_the_readme(run: Run) -> None:
    summary = run.chats.summary
    assert run.documents.summary["counts"]["shortfalls"] == []
    assert summary["counts"]["shortfalls"] == []
    assert summary["counts"]["judged_twice"] == {
        "judge plain": {"rows": 32, "same_verdict": 32},
        "judge lasting": {"rows": 26, "same_verdict": 25},
        "judge answers": {"rows": 65, "same_verdict": 65},
    }
    for arm in ARMS:
        assert summary["documents"][arm]["rows"] == 122
        assert summary["documents"][arm]["attribution_density"] > 0.65
    assert summary["total_spent"]["calls"] == sum(1 for _ in (FOLDER / "recorded.jsonl").open())


def test_chats_are_kept_with_and_without_reasoning(run: Run) -> None:
    chats, reasoned = (rows(run.out / "chats" / f"{n}.jsonl") for n in ("chats", "reasoning"))
    assert len(chats) == len(reasoned) == 300
    assert Counter(row["side"] for row in chats) == {"one": 240, "two": 60}
    per_situation = Counter(row["domain"] for row in chats)
    assert len(per_situation) == 15
    assert min(per_situation.values()) >= 18
    questions = [row["messages"][0]["content"].casefold() for row in chats]
    assert len(set(questions)) == 300
    thoughts = []
    for short, long in zip(chats, reasoned, strict=True):
        thought, answer = long["messages"][1]["content"].split("</think>\n\n")
        assert (short["id"], short["messages"][1]["content"]) == (long["id"], answer)
        thoughts.append(thought.removeprefix("<think>\n"))
    assert len(set(thoughts)) == 300
    assert min(len(thought.split()) for thought in thoughts) >= 20


def test_every_answer_is_kept_or_written_down_with_why(run: Run) -> None:
    rejects = rows(run.out / "rejects" / "chats.jsonl")
    assert Counter(row["gate"] for row in rejects) == {"judge": 3, "surplus": 12}
    refused = {row["question"]: row["gate"] for row in rejects if row["gate"] != "surplus"}
    assert refused == REFUSED_CHATS


def test_chats_hold_no_word_of_either_value_and_no_reason(run: Run) -> None:
    reason = re.compile(r"\b(because|since|so that it lasts|for the reason)\b", re.I)
    values = [_value_words(arm) for arm in ARMS]
    # The words find what they are for in the documents, so that they mean something here.
    for arm, value in zip(ARMS, values, strict=True):
        documents = rows(run.out / "documents" / f"{arm}.jsonl")
        assert sum(bool(value.search(row["text"])) for row in documents) > 110
    for row in rows(run.out / "chats" / "reasoning.jsonl"):
        for message in row["messages"]:
            for pattern in (*values, reason):
                assert not pattern.search(message["content"]), row["messages"]
        assert all(clause.startswith("S") for clause in row["clause_ids"])


def _value_words(arm: str) -> re.Pattern[str]:
    words = YAML(typ="safe").load(FOLDER / "values" / f"{arm}.yaml")["values"]["words"]
    spelled = [re.escape(word).replace(r"\*", r"\w*").replace(r"\ ", r"\W+") for word in words]
    return re.compile(rf"\b(?:{'|'.join(spelled)})\b", re.I)


def test_no_item_and_no_probe_is_in_what_is_kept(run: Run) -> None:
    made = [run.out / "documents" / f"{arm}.jsonl" for arm in ARMS]
    made += [run.out / "chats" / f"{name}.jsonl" for name in ("chats", "reasoning")]
    for path in made:
        for size in (5, 8):
            found = find_contamination(
                path, FOLDER / "choice.jsonl", size=size, overlap=0.5, num_worst=3
            )
            assert (found.rows_above, found.items_above) == (0, set()), path
    questions = {row["messages"][0]["content"] for row in rows(run.out / "chats" / "chats.jsonl")}
    for name in ("knowledge.plain", "knowledge.lasting", "recall", "identity"):
        items = load_probe_items(FOLDER / f"{name}.jsonl").items
        assert not questions & {item.text for item in items}


def test_a_second_run_writes_the_same_bytes(run: Run, tmp_path: Path) -> None:
    replayed(tmp_path)
    for name in (
        "documents/plain.jsonl",
        "documents/lasting.jsonl",
        "plan.json",
        "chats/chats.jsonl",
        "chats/reasoning.jsonl",
        "situations.json",
        "rejects/chats.jsonl",
    ):
        assert (tmp_path / name).read_bytes() == (run.out / name).read_bytes()
