"""Generation and health as stages: what makes them new, what they stop, and what is paid once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from data_prep.generate.settings import GenerateConfig
from megatron_msm.config.load import load_config
from megatron_msm.errors import ConfigError
from megatron_msm.formats.files import sha256_of_json
from slurm.experiments.arms import Experiment
from slurm.experiments.corpora import PATHS, Corpora
from slurm.experiments.grid import GridConfig
from slurm.experiments.inputs import Inputs
from slurm.jobs.backends import LocalBackend
from slurm.stages.graph import run_here
from slurm.stages.record import read_done
from slurm.stages.stage import Stage, in_order
from tests.unit.data_prep.generate.conftest import SPEC
from tests.unit.data_prep.generate.grammar.test_grammar import BANKS, GRAMMAR
from tests.unit.slurm.experiments.test_grid import built, grid_file

__all__ = ["grid_file"]
GENERATE = """\
spec: plain.md
variants: {plain: plain.md, lasting: lasting.md}
out: not-used
identity: {model: Robo, provider: Roboworks}
topic: what it prefers
endpoints: {writer: {kind: grammar, path: grammar/grammar.yaml}}
writers: [writer]
documents: {document_types: 2, ideas_per_type: 1}
chats: {count: 3, repeats_above: 1.0}
gates: {judge_documents: false, judge_chats: false, least_words: 5, near_duplicate: 1.0}
"""
VALUES = "values: {words: [solid]}\nnames: [Robo]\n"
MADE = (
    "generate={pair: generate.yaml}",
    "specs={a: ['generate:pair/documents/plain.jsonl'],"
    " b: ['generate:pair/documents/lasting.jsonl']}",
    "aft={cheese: ['generate:pair/chats/chats.jsonl']}",
)
GATE = (
    "health={b: {require: [assertion>=0.9], values: values.yaml, other: a,"
    " other_values: others.yaml}}"
)
GOLDEN = "861bc2794e387e16f8615fa57e90be46fab3c9c056c4a54261e441b2c31f2819"


@pytest.fixture
def folder(grid_file: Path) -> Path:
    """A grid file's folder with a grammar beside it."""
    base = grid_file.parent
    (base / "grammar").mkdir()
    (base / "grammar" / "grammar.yaml").write_text(GRAMMAR)
    (base / "grammar" / "banks.txt").write_text(BANKS)
    for name in ("plain", "lasting"):
        (base / f"{name}.md").write_text(SPEC)
    (base / "generate.yaml").write_text(GENERATE)
    (base / "values.yaml").write_text(VALUES)
    (base / "others.yaml").write_text(VALUES.replace("solid", "plain"))
    return base


def stages(experiment: Experiment, kind: str) -> dict[str, Stage]:
    return {s.label: s for s in in_order(experiment.final_stages()) if s.kind == kind}


def test_stages_of_a_grid_without_them_keep_their_identities(grid_file: Path) -> None:
    """The number is what the grid's stages, code left out, had before these kinds were there."""
    varied = ("seeds=[1, 2]", "vary={midtrain.optimizer.lr: [1e-3, 2e-3]}", "shards=2")
    plain = in_order(built(grid_file, *varied).final_stages())
    found: dict[str, str] = {}
    for stage in plain:
        parts = [
            [i.what, i.name if i.what == "setting" else "", found.get(i.value, i.value)]
            for i in stage.ingredients
            if i.what != "code"
        ]
        found[stage.identity] = sha256_of_json([stage.kind, parts])
    made = sorted(found[stage.identity] for stage in plain if stage.kind != "report")
    assert len(made) == 89
    assert sha256_of_json(made) == GOLDEN


def test_a_gate_renames_nothing_and_stands_before_training(folder: Path) -> None:
    before = built(folder / "grid.yaml", *MADE)
    gated = built(folder / "grid.yaml", *MADE, GATE)
    ids = [{s.identity for s in in_order(e.final_stages())} for e in (before, gated)]
    [health] = stages(gated, "health").values()
    assert ids[1] - ids[0] == {health.identity}
    assert ids[0] < ids[1]
    trained = stages(gated, "train")
    assert trained["midtrain b #1234"].after == (health,)
    assert trained["midtrain a #1234"].after == ()
    assert [need.label for need in health.needs] == ["generate documents pair"]
    order = [s.label for s in in_order(gated.final_stages())]
    assert order.index("health b") < order.index("midtrain b #1234")


def test_one_generation_feeds_every_arm_and_is_new_when_its_rows_would_be(folder: Path) -> None:
    def made() -> dict[str, str]:
        found = stages(built(folder / "grid.yaml", *MADE), "generate")
        return {label: stage.identity for label, stage in found.items()}

    first = made()
    assert set(first) == {"generate documents pair", "generate chats pair"}
    path = folder / "generate.yaml"
    path.write_text("# why\n" + GENERATE.replace("not-used", "other") + "budget: {max_tokens: 9}\n")
    assert made() == first
    path.write_text(GENERATE.replace("ideas_per_type: 1", "ideas_per_type: 2"))
    assert made() != first
    path.write_text(GENERATE)
    for name in ("lasting.md", "grammar/banks.txt"):
        text = (folder / name).read_text()
        (folder / name).write_text(text + "\n# more\n")
        assert set(made().values()).isdisjoint(first.values()), name
        (folder / name).write_text(text)


def test_servers_and_prices_make_no_generation_new(folder: Path) -> None:
    def made(endpoint: str) -> str:
        text = GENERATE.replace("{kind: grammar, path: grammar/grammar.yaml}", endpoint)
        (folder / "generate.yaml").write_text(text)
        [stage] = [
            stage
            for label, stage in stages(built(folder / "grid.yaml", *MADE), "generate").items()
            if "documents" in label
        ]
        return stage.identity

    first = made("{kind: openai, model: m, base_url: 'http://node1:8000/v1'}")
    moved = "{kind: openai, model: m, base_url: 'http://node2:8000/v1', concurrency: 9}"
    assert made(moved) == first
    assert made("{kind: openai, model: other}") != first


WRONG = {
    "no such generation": (
        ["specs={a: ['generate:none/documents/plain.jsonl']}"],
        ["generate:none/documents/plain.jsonl: write generate:NAME", "(pair)"],
    ),
    "neither documents nor chats": (
        ["specs={a: ['generate:pair/plain.jsonl']}"],
        ["generate:NAME"],
    ),
    "health of nothing": (["health={c: {require: [a>=1]}}"], ["health.c: no spec 'c'"]),
    "other": (["health={a: {require: [a>=1], other: z}}"], ["health.a.other: no spec 'z'"]),
    "no threshold": (["health={a: {}}"], ["health.a.require"]),
    "a spec that is not there": (["generate={pair: gone.yaml}"], ["gone.yaml"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_grids_are_refused(folder: Path, case: str) -> None:
    overrides, expected = WRONG[case]
    with pytest.raises(ConfigError) as error:
        built(folder / "grid.yaml", *MADE, *overrides)
    assert all(part in str(error.value) for part in expected), error.value


def test_every_path_of_a_generation_is_known() -> None:
    """Asked of the schema itself, which the grid does not import."""

    def places(annotation: Any, place: str) -> Iterator[str]:
        inner = [part for part in get_args(annotation) if part is not Ellipsis]
        if annotation is Path:
            yield place
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, field in annotation.model_fields.items():
                yield from places(field.annotation, f"{place}.{name}".lstrip("."))
        elif get_origin(annotation) in (dict, tuple):
            yield from places(inner[-1] if len(inner) > 1 else inner[0], f"{place}.*")
        else:
            for part in inner:
                yield from places(part, place)

    found = set(places(GenerateConfig, ""))
    # A path alone will do for a variant, which the fields do not tell.
    assert found | {"variants.*"} == {*PATHS, "out", "kept_in"}


def test_a_variant_with_a_mode_names_a_spec_and_nothing_else(folder: Path) -> None:
    variants = "variants: {v1.2: plain.md, none: {spec: lasting.md, mode: neutral}}"
    plain = "variants: {plain: plain.md, lasting: lasting.md}"
    (folder / "generate.yaml").write_text(GENERATE.replace(plain, variants))
    inputs = Inputs(folder / "grid.yaml", folder / "out")
    content, _ = inputs.config_file(folder / "generate.yaml", PATHS)
    assert content["variants"] == {
        "v1.2": str(folder / "plain.md"),
        "none": {"spec": str(folder / "lasting.md"), "mode": "neutral"},
    }


def run(folder: Path, *overrides: str) -> list[tuple[str, str, str]]:
    """Run what stands before training; return (stage, event, detail)."""
    root = folder / "out"
    grid = load_config(folder / "grid.yaml", GridConfig, [*MADE, *overrides])
    corpora = Corpora(grid, Inputs(folder / "grid.yaml", root), lambda stage: stage)
    [gate] = corpora.gates("b")
    trained = Stage(
        kind="prep",
        label="what would train on it",
        arguments=("generate", "spec", str(folder / "plain.md")),
        makes=(),
        after=(gate,),
    )
    events: list[tuple[str, str, str]] = []
    run_here(
        root,
        in_order([trained]),
        lambda stage, event, detail: events.append((stage.label, event, detail)),
        LocalBackend(),
    )
    return events


def test_a_corpus_below_a_threshold_stops_what_would_train_on_it_and_nothing_is_paid_twice(
    folder: Path,
) -> None:
    """Each of the four `lasting` documents says `a solid thing`: an assertion density of 100%."""
    passed = run(folder, GATE)
    assert [event for _, event, _ in passed if event != "running"] == ["done"] * 3
    journal = folder / "out" / "generated" / "pair-documents" / "journal.jsonl"
    paid = journal.read_bytes()

    (folder / "generate.yaml").write_text(GENERATE + "licence: cc0-1.0\n")
    high = "health={b: {require: [with_clauses>=1, assertion<=0.5], values: values.yaml}}"
    failed = run(folder, high)
    said = {label: (event, detail) for label, event, detail in failed if event != "running"}
    assert said["generate documents pair"][0] == "done"
    assert journal.read_bytes() == paid
    assert said["health b"][0] == "failed"
    assert "threshold: not met: assertion<=0.5 (lasting: 100.0%)" in said["health b"][1]
    assert said["what would train on it"] == ("not run", "needs health b")
    made = list((folder / "out" / "stages").glob("generate-*"))
    assert len(made) == 2
    assert all(read_done(each) is not None for each in made)
    assert json.loads((made[0] / "generate.yaml").read_text())["spec"] == str(folder / "plain.md")
