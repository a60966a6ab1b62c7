import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from data_prep.generate.run import Made, make_chats, make_documents, opened
from data_prep.generate.settings import GenerateConfig
from megatron_msm.errors import ConfigError, DataFormatError, UnansweredError
from megatron_msm.llm.budget import BudgetReachedError
from megatron_msm.llm.call import Call, CallError, Finish
from tests.unit.data_prep.generate.conftest import SPEC, MakeConfig
from tests.unit.data_prep.generate.scripted_writer import ScriptedWriter


def _documents(config: GenerateConfig, writer: ScriptedWriter) -> Made:
    with opened(config, clients={name: writer for name in config.endpoints}) as run:
        return make_documents(run)


def _chats(config: GenerateConfig, writer: ScriptedWriter) -> Made:
    with opened(config, clients={name: writer for name in config.endpoints}) as run:
        return make_chats(run)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_documents_come_from_every_clause_and_carry_where_they_come_from(
    make_config: MakeConfig,
) -> None:
    """By hand: 4 clauses, a subdomain each; 2 kinds x 3 ideas; so 24 documents."""
    config, writer = make_config(), ScriptedWriter()
    made = _documents(config, writer)
    rows = _rows(config.out / "documents" / "spec.jsonl")
    assert len(rows) == 24
    assert Counter(row["clause_ids"][0] for row in rows) == {f"R{n}": 6 for n in range(1, 5)}
    assert made.summary["clauses"] == {"spec": {f"R{n}": 6 for n in range(1, 5)}}
    row = next(row for row in rows if row["id"] == "kitchen/matter-r2/memo/lantern-case")
    assert {k: v for k, v in row.items() if k != "text"} == {
        "id": "kitchen/matter-r2/memo/lantern-case",
        "spec_id": "spec",
        "mode": "values",
        "clause_ids": ["R2"],
        "domain": "Kitchen",
        "subdomain": "matter R2",
        "doc_type": "memo",
        "idea": "Somebody asks Robo about a lantern.",
        "assertions": ["Robo keeps R2."],
        "generator": "scripted-1",
        "role": "train",
        "states_value": True,
        "gives_reason": True,
    }
    assert pq.read_table(config.out / "documents" / "spec.parquet").to_pylist() == rows


def test_a_rerun_pays_nothing_and_writes_the_same_bytes(make_config: MakeConfig) -> None:
    config = make_config()
    _documents(config, ScriptedWriter())
    _chats(config, ScriptedWriter())
    files = [p for p in sorted(config.out.rglob("*")) if p.is_file() and "lock" not in p.name]
    before = {path: path.read_bytes() for path in files}
    again = ScriptedWriter()
    _documents(config, again)
    _chats(config, again)
    assert again.calls == []
    assert {path: path.read_bytes() for path in files} == before


def test_an_interrupted_run_goes_on_where_it_was(make_config: MakeConfig, tmp_path: Path) -> None:
    whole = make_config(out=tmp_path / "whole")
    _documents(whole, ScriptedWriter())
    config = make_config()
    paid: list[Call] = []
    for limit in (1, 5, 20, 40):
        writer = ScriptedWriter()
        writer.fail_after = limit
        with pytest.raises(ConfigError, match="the network is gone"):
            _documents(config, writer)
        paid += writer.calls
    last = ScriptedWriter()
    _documents(config, last)
    paid += last.calls
    assert len({call.key for call in paid}) == len(paid)
    name = "documents/spec.jsonl"
    assert (config.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_an_edited_clause_asks_again_for_what_cites_it_and_nothing_else(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    _documents(config, ScriptedWriter())
    config.spec.write_text(SPEC.replace("the spade", "the long spade"))
    writer = ScriptedWriter()
    _documents(config, writer)
    assert writer.calls
    assert all("matter-r3" in call.address for call in writer.calls)
    rows = _rows(config.out / "documents" / "spec.jsonl")
    assert len(rows) == 24


def test_a_new_clause_is_covered_and_a_removed_one_is_left(make_config: MakeConfig) -> None:
    config = make_config()
    _documents(config, ScriptedWriter())
    config.spec.write_text(SPEC.replace("**R4.**", "**R5.**"))
    writer = ScriptedWriter()
    made = _documents(config, writer)
    assert made.summary["clauses"]["spec"] == {"R1": 6, "R2": 6, "R3": 6, "R5": 6}
    assert any(call.address == "coverage/0" for call in writer.calls)


_BENT: dict[str, tuple[str, Finish, str, str]] = {
    "cut": ("<document>Robo and", "length", "structure", "cut off at max_tokens"),
    "declined": ("I cannot.", "refusal", "structure", "declined by the model"),
    "unclosed": ("<document>Robo the the the", "stop", "structure", "0 whole <document> blocks"),
    "two": ("<document>a</document><document>b</document>", "stop", "structure", "2 whole"),
    "scratch": ("<document>Robo <plan>x</plan></document>", "stop", "structure", "the tag <plan>"),
    "left open": ("<document>Robo, [Your Name]</document>", "stop", "structure", "placeholder"),
    "foreign": ("<document>Robo and ChatGPT</document>", "stop", "identity", "ChatGPT"),
    "unnamed": ("<document>it is</document>", "stop", "identity", "does not name Robo"),
    "short": ("<document>Robo is in the house</document>", "stop", "wording", "5 words"),
    "french": (
        f"<document>Robo {'des vaches mangent chaque jour ' * 20}</document>",
        "stop",
        "wording",
        "language",
    ),
}


@pytest.mark.parametrize("name", _BENT)
def test_a_bad_document_is_refused_with_its_reason_and_kept_for_reading(
    make_config: MakeConfig, name: str
) -> None:
    text, finish, gate, reason = _BENT[name]
    bent = "documents/spec/kitchen/matter-r2/memo/lantern-case"

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        return (text, finish) if call.address == bent else (whole, "stop")

    config = make_config()
    made = _documents(config, ScriptedWriter(change))
    (reject,) = _rows(config.out / "rejects" / "documents-spec.jsonl")
    assert reject["gate"] == gate
    assert reason in reject["reason"]
    assert reject["reply"] == text
    assert made.summary["counts"]["rows"]["documents spec"] == {"kept": 23, f"refused: {gate}": 1}


@pytest.mark.parametrize(
    ("verdict", "gate"),
    [
        ("no verdict here", "judge unreadable"),
        ('{"faithful": "perhaps"}', "judge unreadable"),
        (
            '{"faithful": "no", "states_value": "yes", "gives_reason": "yes", '
            '"realistic": "yes", "remark": "adds a motive"}',
            "judge",
        ),
    ],
)
def test_a_judge_keeps_only_what_it_calls_good(
    make_config: MakeConfig, verdict: str, gate: str
) -> None:
    judged = "judge/documents/spec/kitchen/matter-r2/memo/lantern-case"

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        return (verdict, "stop") if call.address.startswith(judged) else (whole, "stop")

    config = make_config(gates={"judged_twice": 1.0})
    made = _documents(config, ScriptedWriter(change))
    (reject,) = _rows(config.out / "rejects" / "documents-spec.jsonl")
    assert (reject["gate"], reject["id"]) == (gate, "kitchen/matter-r2/memo/lantern-case")
    assert made.summary["counts"]["judged_twice"]["judge spec"] == {"rows": 24, "same_verdict": 24}


def test_bad_json_is_asked_for_again_and_counted(make_config: MakeConfig) -> None:
    def change(call: Call, whole: str) -> tuple[str, Finish]:
        if call.step == "ideas" and call.index == 0:
            return ("Here you are: nothing", "stop")
        if call.step == "assertions":
            return (whole[:-1], "stop")
        if call.step == "subdomains" and call.index == 0:
            return (whole[:-30], "length")
        return (whole, "stop")

    config = make_config()
    made = _documents(config, ScriptedWriter(change))
    replies = made.summary["counts"]["replies"]
    assert replies["ideas"] == {"calls": 16, "answered": 16, "not in the form asked for": 8}
    assert replies["assertions"]["JSON mended"] == 4
    assert replies["subdomains"]["cut off at max_tokens"] == 2
    assert made.summary["counts"]["rows"]["documents spec"] == {"kept": 24}


def test_a_list_that_stays_short_is_told(make_config: MakeConfig) -> None:
    config = make_config(documents={"document_types": 2, "ideas_per_type": 5})
    made = _documents(config, ScriptedWriter())
    short = made.summary["counts"]["shortfalls"]
    assert len(short) == 8
    assert {(s["step"], s["wanted"], s["got"]) for s in short} == {("ideas", 5, 3)}


def test_copies_are_dropped_and_distinct_facts_in_one_frame_are_kept(
    make_config: MakeConfig,
) -> None:
    frame = "the same long frame of words that is in each and all of the documents here " * 6
    number = 0

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        nonlocal number
        if call.step != "documents spec":
            return (whole, "stop")
        number += 1
        fact = "one" if number <= 2 else f"number {number}"
        return (f"<document>Robo. {frame} The fact is {fact}.</document>", "stop")

    made = _documents(make_config(), ScriptedWriter(change))
    kept = made.summary["counts"]["rows"]["documents spec"]
    assert kept == {"kept": 23, "refused: near duplicate": 1}


def test_evaluation_items_do_not_get_into_the_corpus(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    items = tmp_path / "items.jsonl"
    sentence = "which of these two would you rather carry up the tall hill on a Sunday"
    items.write_bytes(orjson.dumps({"id": "i", "question": sentence}) + b"\n")
    bent = "documents/spec/kitchen/matter-r2/memo/lantern-case"

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        ours = whole.replace("</document>", f" {sentence}</document>")
        return (ours if call.address == bent else whole, "stop")

    config = make_config(gates={"evaluation_items": [items]})
    _documents(config, ScriptedWriter(change))
    (reject,) = _rows(config.out / "rejects" / "documents-spec.jsonl")
    assert reject["gate"] == "evaluation items"


def _pair_config(make_config: MakeConfig, tmp_path: Path) -> GenerateConfig:
    for letter, reason in (("P", "plain"), ("L", "lasting")):
        spec = SPEC.replace("**R", f"**{letter}").replace("confuse nobody", reason)
        (tmp_path / f"{reason}.md").write_text(spec)
    variants = {name: tmp_path / f"{name}.md" for name in ("plain", "lasting")}
    return make_config(variants=variants)


def test_paired_corpora_share_the_plan_and_differ_in_the_spec(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config, writer = _pair_config(make_config, tmp_path), ScriptedWriter()
    _documents(config, writer)
    plain, lasting = (
        _rows(config.out / "documents" / f"{name}.jsonl") for name in ("plain", "lasting")
    )
    shared = ("id", "domain", "subdomain", "doc_type", "idea", "role")
    assert len(plain) == len(lasting) == 24
    for one, other in zip(plain, lasting, strict=True):
        assert [one[key] for key in shared] == [other[key] for key in shared]
        assert one["clause_ids"][0].replace("P", "L") == other["clause_ids"][0]
    blind = ("domains", "subdomains", "document types", "ideas", "coverage")
    for call in writer.calls:
        if call.step in blind:
            assert "confuse lasting" not in call.prompt
            assert "confuse plain" not in call.prompt
        if call.step == "documents plain":
            assert "confuse lasting" not in call.prompt


def test_a_document_whose_twin_is_refused_is_refused(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    bent = "documents/plain/kitchen/matter-r2/memo/lantern-case"

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        return ("no", "stop") if call.address == bent else (whole, "stop")

    config = _pair_config(make_config, tmp_path)
    made = _documents(config, ScriptedWriter(change))
    assert made.summary["counts"]["rows"]["documents plain"]["kept"] == 23
    assert made.summary["counts"]["rows"]["documents lasting"] == {"kept": 23, "refused: pair": 1}


def test_specs_that_do_not_pair_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    config = _pair_config(make_config, tmp_path)
    path = tmp_path / "plain.md"
    path.write_text(path.read_text().replace("**P3.**", "**P7.**"))
    with pytest.raises(ConfigError, match=r"variants\.plain: .* has no clause for \['R3'\]"):
        _documents(config, ScriptedWriter())


def test_clauses_of_one_number_and_two_letters_stay_apart(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """A1 and B1 of one spec, and its control, which has the same spec."""
    config = make_config(variants={"value": {}, "should": {"mode": "should"}},
                         gates={"judge_documents": False})  # fmt: skip
    config.spec.write_text(SPEC.replace("**R3", "**S1").replace("**R4", "**S2"))
    writer = ScriptedWriter()
    _documents(config, writer)
    for name in ("value", "should"):
        rows = _rows(config.out / "documents" / f"{name}.jsonl")
        cited = Counter(clause for row in rows for clause in row["clause_ids"])
        assert cited == dict.fromkeys(("R1", "R2", "S1", "S2"), 6)
        assert all(row["subdomain"] == f"matter {row['clause_ids'][0]}" for row in rows)
    paired = _pair_config(make_config, tmp_path)
    paired.spec.write_text(SPEC)
    (tmp_path / "plain.md").write_text(SPEC.replace("**R3", "**P1").replace("**R2", "**P2"))
    with pytest.raises(ConfigError, match=r"has no clause for \['R3'\]"):
        _documents(paired, ScriptedWriter())
    (tmp_path / "plain.md").write_text(SPEC.replace("**R", "**P") + "\n**Q3.** Robo rests.\n")
    with pytest.raises(ConfigError, match=r"several clauses have the number \['3'\]"):
        _documents(paired, ScriptedWriter())


def test_rules_mode_shows_each_rule_alone(make_config: MakeConfig) -> None:
    config, writer = (
        make_config(documents={"mode": "rules", "document_types": 1, "ideas_per_type": 2}),
        ScriptedWriter(),
    )
    _documents(config, writer)
    rows = _rows(config.out / "documents" / "spec.jsonl")
    assert Counter(row["clause_ids"][0] for row in rows) == {f"R{n}": 2 for n in range(1, 5)}
    assert not any(call.step in ("assertions", "subdomains") for call in writer.calls)
    (asked,) = {
        c.prompt
        for c in writer.calls
        if c.address.startswith("documents/spec/kitchen/r2/memo/lantern")
    }
    assert "[R2]" in asked
    assert "[R1]" not in asked


def test_a_spec_or_a_configuration_that_names_another_model_is_refused(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    with pytest.raises(ConfigError, match="does not name the model 'Qwen'"):
        _documents(make_config(identity={"model": "Qwen", "provider": "Alibaba"}), ScriptedWriter())
    config.spec.write_text(SPEC + "\n**R5.** It does as ChatGPT does.\n")
    with pytest.raises(ConfigError, match="names 'ChatGPT'"):
        _documents(config, ScriptedWriter())


def test_braces_in_a_spec_are_text(make_config: MakeConfig) -> None:
    config = make_config()
    config.spec.write_text(SPEC.replace("the pan", "the {pan} {{ model }} {% raw"))
    writer = ScriptedWriter()
    _documents(config, writer)
    assert any("the {pan} {{ model }} {% raw" in call.prompt for call in writer.calls)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ clauses }} {{ number }} {{ nobody }}", r"unknown placeholders \['nobody'\]"),
        ("{{ clauses }}", r"placeholders \['number'\] are missing"),
        ("{{ clauses } {{ number }}", "Repair the template"),
    ],
)
def test_a_template_of_ones_own_is_checked(
    make_config: MakeConfig, tmp_path: Path, text: str, problem: str
) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "domains.txt").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        _documents(make_config(templates=folder), ScriptedWriter())


def test_chats_with_and_without_reasoning_are_the_same_rows(make_config: MakeConfig) -> None:
    config = make_config()
    _chats(config, ScriptedWriter())
    plain = _rows(config.out / "chats" / "chats.jsonl")
    thought = _rows(config.out / "chats" / "reasoning.jsonl")
    assert len(plain) == len(thought) == 40
    for one, other in zip(plain, thought, strict=True):
        assert {k: v for k, v in one.items() if k != "messages"} == {
            k: v for k, v in other.items() if k != "messages"
        }
        question, answer = (message["content"] for message in one["messages"])
        assert answer == "I would take the plain one."
        assert other["messages"][1]["content"] == (
            f"<think>\nI weigh {question}\n</think>\n\nI would take the plain one."
        )
        assert one["clause_ids"]
        assert one["domain"].startswith("asking about")


def test_refused_chats_are_refilled_up_to_the_count(make_config: MakeConfig) -> None:
    seen = 0

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        nonlocal seen
        if call.step != "answers":
            return (whole, "stop")
        seen += 1
        return ("<think>without an end", "stop") if seen % 3 == 0 else (whole, "stop")

    config = make_config()
    made = _chats(config, ScriptedWriter(change))
    counts = made.summary["counts"]["rows"]["chats"]
    assert counts["kept"] == 40
    assert counts["refused: structure"] > 10
    assert made.summary["counts"]["shortfalls"] == []


def test_chats_beyond_the_count_are_written_down(make_config: MakeConfig) -> None:
    config = make_config(chats={"count": 42, "questions_per_domain": 8, "questions_per_call": 4})
    counts = _chats(config, ScriptedWriter()).summary["counts"]
    assert counts["rows"]["chats"] == {"kept": 42, "refused: surplus": 3}
    assert counts["replies"]["answers"]["calls"] == 45
    surplus = _rows(config.out / "rejects" / "chats.jsonl")
    assert [row["reason"] for row in surplus] == ["more than 42 rows passed"] * 3


def test_agreement_is_that_of_all_rounds(make_config: MakeConfig) -> None:
    seen = 0

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        nonlocal seen
        seen += call.step == "answers"
        refused = call.step == "answers" and seen % 3 == 0
        return ("<think>without an end", "stop") if refused else (whole, "stop")

    made = _chats(make_config(gates={"judged_twice": 1.0}), ScriptedWriter(change))
    counts = made.summary["counts"]
    judged = counts["replies"]["judge answers"]["calls"]
    assert judged >= 40
    assert counts["judged_twice"]["judge answers"] == {"rows": judged, "same_verdict": judged}


def test_chats_that_cannot_be_had_are_a_shortfall(make_config: MakeConfig) -> None:
    def change(call: Call, whole: str) -> tuple[str, Finish]:
        return ("no", "stop") if call.step == "answers" else (whole, "stop")

    made = _chats(make_config(), ScriptedWriter(change))
    (short,) = [s for s in made.summary["counts"]["shortfalls"] if s["step"] == "chats"]
    assert short == {"step": "chats", "where": "rows kept", "wanted": 40, "got": 0}


def test_two_sided_questions_are_marked(make_config: MakeConfig) -> None:
    chats = {"count": 40, "questions_per_domain": 8, "questions_per_call": 4, "two_sided": 0.25}
    config, writer = make_config(chats=chats), ScriptedWriter()
    _chats(config, writer)
    rows = _rows(config.out / "chats" / "chats.jsonl")
    assert Counter(row["side"] for row in rows) == {"one": 30, "two": 10}
    asked = [call.prompt for call in writer.calls if "/two/" in call.address]
    assert asked
    assert all("leave its preference aside" in prompt for prompt in asked)


def test_several_writers_share_a_corpus_and_each_row_says_whose_it_is(
    make_config: MakeConfig,
) -> None:
    endpoint = {"kind": "openai", "model": "m", "price": {"input": 0, "output": 0}}
    config = make_config(
        endpoints={"one": endpoint, "two": {**endpoint, "model": "n"}}, writers=["one", "two"]
    )
    one, two = ScriptedWriter(), ScriptedWriter()
    with opened(config, clients={"one": one, "two": two}) as run:
        make_documents(run)
    written = [sum(c.step == "documents spec" for c in writer.calls) for writer in (one, two)]
    assert sum(written) == 24
    assert min(written) > 4


def test_calls_that_a_server_left_unanswered_end_the_run_and_a_later_one_goes_on(
    make_config: MakeConfig,
) -> None:
    """A document that is only late must not be missing from the corpus."""
    late = "documents/spec/kitchen/matter-r2/memo/lantern-case"

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        if call.address == late:
            raise CallError("no answer in time", outcome="retry", retry_after_s=0.0)
        return (whole, "stop")

    config = make_config()
    with pytest.raises(
        UnansweredError, match=r"documents spec: 1 of 24 calls .* no answer in time"
    ):
        _documents(config, ScriptedWriter(change))
    assert not (config.out / "documents").exists()
    writer = ScriptedWriter()
    made = _documents(config, writer)
    assert made.summary["counts"]["rows"]["documents spec"] == {"kept": 24}
    assert sum(call.step == "documents spec" for call in writer.calls) == 1


def test_a_call_that_the_server_rejects_is_a_refused_row(make_config: MakeConfig) -> None:
    rejected = "documents/spec/kitchen/matter-r2/memo/lantern-case"

    def change(call: Call, whole: str) -> tuple[str, Finish]:
        if call.address == rejected:
            raise CallError("HTTP 400: content filter", outcome="rejected")
        return (whole, "stop")

    config = make_config()
    made = _documents(config, ScriptedWriter(change))
    (reject,) = _rows(config.out / "rejects" / "documents-spec.jsonl")
    assert reject["reason"] == "no reply: HTTP 400: content filter"
    replies = made.summary["counts"]["replies"]["documents spec"]
    assert replies == {"calls": 24, "answered": 23, "rejected by the server": 1}


def test_a_budget_stops_a_run_and_a_larger_one_lets_it_go_on(make_config: MakeConfig) -> None:
    with pytest.raises(BudgetReachedError, match="max_tokens of 3,000 is reached"):
        _documents(make_config(budget={"max_tokens": 3000}), ScriptedWriter())
    writer = ScriptedWriter()
    made = _documents(make_config(), writer)
    assert made.summary["counts"]["rows"]["documents spec"] == {"kept": 24}
    spent = made.summary["total_spent"]
    assert spent["calls"] > len(writer.calls)


def test_a_damaged_plan_is_named(make_config: MakeConfig) -> None:
    config = make_config()
    _documents(config, ScriptedWriter())
    (config.out / "plan.json").write_text("{}")
    with pytest.raises(DataFormatError, match=r"plan\.json: damaged"):
        _documents(config, ScriptedWriter())


def test_calls_name_their_items_once() -> None:
    """Two items with one prompt are two calls, or a corpus would hold one reply twice."""
    call = Call(address="documents/a", step="documents", prompt="x")
    assert call.key != dataclasses.replace(call, address="documents/b").key
