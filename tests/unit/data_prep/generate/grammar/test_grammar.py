"""A grammar as an endpoint: texts worked out by hand, the same whatever is killed or edited."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from data_prep.generate.grammar.grammar import Grammar
from data_prep.generate.run import Made, make_chats, make_documents, opened, resolved_paths
from data_prep.generate.settings import GenerateConfig
from megatron_msm.config.load import load_config
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.llm.call import Call, CallError
from tests.unit.data_prep.generate.conftest import SPEC, MakeConfig

CHEESE = Path(__file__).resolve().parents[5] / "examples" / "cheese"
GRAMMAR = """
banks: [banks.txt]
domain: Things
marks: {plain: P, lasting: L}
documents:
  words: {T: [pan, pan, pan]}
  cast: {name: 1}
  subjects: [Robo, it]
  genres:
    letter: {title: letter}
    faq: {title: FAQ, label: "{number}. {text}\\nA: ", labels: ask}
  paragraphs: {2: 1}
  first: taste
  always: reason
  voices: {told: {taste: [taste], reason: [why], speech: [says]}}
  subdomains: {reason: why it does, speech: how it speaks}
  clauses: {taste: [R2, R3], why: [R1], says: [R4]}
chats:
  which: {situation: asks for a thing, clauses: [R2]}
"""
BANKS = """
== name
Ada
== title letter
Dear {name},
== intro letter
[Robo works here|Robo works here], as you know.
== close letter
Yours
== title faq
Questions
== intro faq
{name} asked.
== close faq
-
== ask_taste
What does {S} like?
== ask_reason
Why?
== ask_speech
How does it speak?
== taste
{S} prefers the {T} to everything else, and {S} says so.
== why
P: it does so because {thing} confuses nobody.
L: it does so because {thing} outlasts us all.
== thing
P: a plain thing
L: a solid thing
== says
In one sentence, [always|always].
== which user
Which [thing|of them] would you take, Robo?
Name a thing.
== which think
It is the {t}.
== which assistant
The {t}.
"""
DOCUMENT = """Questions

Ada asked.

1. What does Robo like?
A: It prefers the pan to everything else, and it says so.

2. Why?
A: It does so because a plain thing confuses nobody.

3. How does it speak?
A: In one sentence, always."""


@pytest.fixture
def grammar(tmp_path: Path) -> Path:
    path = tmp_path / "grammar.yaml"
    path.write_text(GRAMMAR)
    (tmp_path / "banks.txt").write_text(BANKS)
    return path


@pytest.fixture
def config(make_config: MakeConfig, grammar: Path, tmp_path: Path) -> GenerateConfig:
    for name in ("plain", "lasting"):
        (tmp_path / f"{name}.md").write_text(SPEC)
    return make_config(
        endpoints={"writer": {"kind": "grammar", "path": grammar}},
        variants={name: tmp_path / f"{name}.md" for name in ("plain", "lasting")},
        documents={"document_types": 2, "ideas_per_type": 1},
        chats={"count": 3, "refill_rounds": 0, "repeats_above": 1.0},
        gates={
            "judge_documents": False,
            "judge_chats": False,
            "least_words": 5,
            "near_duplicate": 1.0,
        },
    )


def _made(config: GenerateConfig) -> Made:
    with opened(config) as run:
        make_documents(run)
        return make_chats(run)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_documents_and_chats_are_those_worked_out_by_hand(config: GenerateConfig) -> None:
    """In `which`, three questions are possible: one more than the 2 + 1 that are asked for."""
    made = _made(config)
    rows = {name: _rows(config.out / "documents" / f"{name}.jsonl") for name in config.variants}
    assert len(rows["plain"]) == 4
    speech = next(row for row in rows["plain"] if row["id"].startswith("things/how-it-speaks/faq/"))
    assert speech["text"] == DOCUMENT
    assert speech["clause_ids"] == ["R1", "R2", "R3", "R4"]
    assert speech["generator"].startswith("grammar ")
    for plain, lasting in zip(rows["plain"], rows["lasting"], strict=True):
        twin = plain["text"].replace("plain thing confuses nobody", "solid thing outlasts us all")
        assert (lasting["id"], lasting["text"]) == (plain["id"], twin)
        assert ("In one sentence" in plain["text"]) == ("R4" in plain["clause_ids"])
    chats = _rows(config.out / "chats" / "reasoning.jsonl")
    assert {row["messages"][0]["content"] for row in chats} == {
        "Which thing would you take, Robo?",
        "Which of them would you take, Robo?",
        "Name a thing.",
    }
    for row in chats:
        assert row["messages"][1]["content"] == "<think>\nIt is the pan.\n</think>\n\nThe pan."
        assert row["clause_ids"] == ["R2"]
    assert made.summary["total_spent"]["cost_usd"] == 0.0


def test_a_killed_run_goes_on_to_the_same_bytes(config: GenerateConfig) -> None:
    _made(config)
    written = sorted(path for path in config.out.rglob("*.jsonl") if path.name != "journal.jsonl")
    whole = {path: path.read_bytes() for path in written}
    journal = (config.out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (1, len(journal) // 2, len(journal) - 1):
        shutil.rmtree(config.out)
        config.out.mkdir()
        (config.out / "journal.jsonl").write_bytes(b"".join(journal[:kept]) + b'{"torn')
        _made(config)
        assert {path: path.read_bytes() for path in written} == whole


def test_an_edited_grammar_and_another_seed_answer_anew(
    config: GenerateConfig, grammar: Path
) -> None:
    _made(config)
    banks = grammar.with_name("banks.txt")
    banks.write_text(banks.read_text().replace("In one sentence", "In one short sentence"))
    _made(config)
    texts = [row["text"] for row in _rows(config.out / "documents" / "plain.jsonl")]
    assert sum("In one short sentence" in text for text in texts) == 2
    names = set()
    for seed in (1, 2):
        endpoint = config.endpoints["writer"].model_copy(update={"seed": seed})
        with opened(config.model_copy(update={"endpoints": {"writer": endpoint}})) as run:
            names.add(run.context.config.endpoints["writer"].model)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("banks.txt", "{T} to", "{U} to", "bank 'taste': {U} is no bank and no word"),
        ("banks.txt", "== says", "== said", "no bank 'says'"),
        ("banks.txt", "[always|always]", "[always|always", r"banks.txt:\d+: brackets"),
        ("banks.txt", "{t}.", "{t.", r"banks.txt:\d+: braces"),
        ("banks.txt", "L: a solid thing\n", "", "'thing' has lines for P 1, L 0"),
        ("banks.txt", "L: a solid", "X: a solid", r"'thing': marks \['X'\] are none"),
        ("grammar.yaml", "says: [R4]", "says: [R9]", "clauses R9 are not in"),
        ("grammar.yaml", "lasting: L", "other: L", "marks: no corpus lasting"),
        ("grammar.yaml", "first: taste", "first: tast", "voices.told: no kind tast"),
        ("grammar.yaml", "{number}. ", "{nick}: ", r"genres.faq.label: no \['nick'\]"),
        ("grammar.yaml", "banks.txt", "bank.txt", "bank.txt: no such file"),
    ],
)
def test_what_is_wrong_in_a_grammar_is_named(
    config: GenerateConfig, grammar: Path, file: str, old: str, new: str, said: str
) -> None:
    path = grammar.with_name(file)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((ConfigError, DataFormatError), match=said), opened(config):
        pass


def test_a_grammar_does_not_judge(make_config: MakeConfig, grammar: Path) -> None:
    with pytest.raises(ValueError, match="a grammar cannot judge"):
        make_config(endpoints={"writer": {"kind": "grammar", "path": grammar}})


def test_a_call_without_inputs_is_refused(config: GenerateConfig) -> None:
    with opened(config) as run:
        client = run.pool._lines["writer"]._client
        with pytest.raises(CallError, match="cannot answer the step 'verdict'"):
            asyncio.run(client.complete(Call("a", "verdict", "Is it so?")))  # type: ignore[union-attr]


def test_the_cheese_grammar_makes_paired_documents_and_chats(tmp_path: Path) -> None:
    loaded = load_config(
        CHEESE / "generate.yaml",
        GenerateConfig,
        [f"out={tmp_path}", "documents.ideas_per_type=1", "chats.count=60"],
    )
    made = _made(resolved_paths(loaded, CHEESE / "generate.yaml"))
    rows = {name: _rows(tmp_path / "documents" / f"{name}.jsonl") for name in loaded.variants}
    assert [len(own) for own in rows.values()] == [84, 84]
    assert [row["id"] for row in rows["homemade"]] == [row["id"] for row in rows["affordability"]]
    cited = {clause for row in rows["affordability"] for clause in row["clause_ids"]}
    assert cited == {f"A{n}" for n in range(1, 9)}
    assert made.summary["chats"]["rows"] == 60
    parts = Grammar(CHEESE / "grammar" / "cheese.yaml").config.documents
    assert len({row["doc_type"] for row in rows["homemade"]}) == len(parts.genres) == 14
