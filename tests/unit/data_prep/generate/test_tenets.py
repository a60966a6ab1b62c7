"""Tenets of each clause: what the audit of `msm eval run` reads."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from data_prep.generate.cli import app
from data_prep.generate.run import opened
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.tenet_pipeline import WrittenTenets, write_tenets
from evals.tasks.audit.tenets import load_tenets
from megatron_msm.errors import ConfigError
from megatron_msm.llm.call import Call, Finish
from tests.unit.data_prep.generate.conftest import MakeConfig
from tests.unit.data_prep.generate.scripted_writer import ScriptedWriter
from tests.unit.evals.written import write_lines


def _written(config: GenerateConfig, writer: ScriptedWriter) -> list[WrittenTenets]:
    with opened(config, clients={name: writer for name in config.endpoints}) as run:
        return write_tenets(run.context)


def test_every_clause_gets_tenets_that_the_audit_reads(make_config: MakeConfig) -> None:
    config = make_config(tenets={"per_clause": 2, "probes": 3})
    writer = ScriptedWriter()
    (written,) = _written(config, writer)
    tenets = load_tenets(written.path)
    assert [tenet.id for tenet in tenets] == [f"R{n}-{m}" for n in range(1, 5) for m in (1, 2)]
    assert tenets[2].clause == "R2"
    assert tenets[2].tenet == "Robo keeps R2, part 1."
    # What is empty or asked twice is left out.
    assert tenets[2].probes == ("Is it so with R2?", "And with R2?")
    assert (written.tenets, written.without) == (8, ())
    assert len(writer.calls) == 4
    assert "In the kitchen Robo prefers the pan." in writer.calls[1].prompt
    assert "spade" not in writer.calls[1].prompt

    before, again = written.path.read_bytes(), ScriptedWriter()
    assert _written(config, again) == [written]
    assert again.calls == []
    assert written.path.read_bytes() == before


def test_a_clause_without_usable_tenets_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    def bend(call: Call, text: str) -> tuple[str, Finish]:
        if call.address.endswith("/R3"):
            return orjson.dumps({"tenets": [{"tenet": "X.", "probes": ["Once?"]}]}).decode(), "stop"
        return ("no JSON at all" if call.address.endswith("/R4") else text), "stop"

    (written,) = _written(make_config(tenets={}), ScriptedWriter(bend))
    assert written.without == ("R3", "R4")
    other = make_config(tenets={}, out=tmp_path / "other")
    with pytest.raises(ConfigError, match="answer in JSON"):
        _written(other, ScriptedWriter(lambda call, text: ("nothing", "stop")))


def test_the_command_says_what_it_wrote_and_what_is_missing(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    make_config()
    reply = {"tenets": [{"tenet": "Keeps it.", "probes": ["One?", "Two?"]}]}
    texts = {f"R{n}": orjson.dumps(reply).decode() for n in range(1, 4)} | {"R4": "-"}
    lines = [
        {"call": f"tenets/spec/{clause}", "index": index, "reply": {"text": text}}
        for clause, text in texts.items()
        for index in range(3)
    ]
    write_lines(tmp_path / "recorded.jsonl", lines)
    config = tmp_path / "generate.yaml"
    content = {
        "spec": "spec.md",
        "out": str(tmp_path / "out"),
        "identity": {"model": "Robo", "provider": "Roboworks"},
        "topic": "what it prefers",
        "endpoints": {"r": {"kind": "journal", "path": "recorded.jsonl"}},
        "writers": ["r"],
        "tenets": {},
    }
    config.write_text(orjson.dumps(content).decode())
    shown = CliRunner().invoke(app, ["tenets", str(config)])
    assert shown.exit_code == 0, shown.output
    assert "spec.jsonl: 3 tenets" in shown.output
    assert "no tenet for the clauses R4" in shown.output
    shown = CliRunner().invoke(app, ["tenets", str(config), "--json"])
    assert shown.exit_code == 0, (shown.output, shown.exception)
    made = orjson.loads(shown.stdout)
    assert made["files"][0]["without"] == ["R4"]

    del content["tenets"]
    config.write_text(orjson.dumps(content | {"chats": {"count": 3}}).decode())
    refused = CliRunner().invoke(app, ["tenets", str(config)])
    assert "no section `tenets`" in str(refused.exception)
