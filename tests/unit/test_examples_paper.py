"""The recipes for the paper's models: files load, grids are planned, plans are current."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from typer.testing import CliRunner

from data_prep.generate.run import read_specs, resolved_paths
from data_prep.generate.settings import GenerateConfig
from data_prep.generate.spec.clauses import Spec, read_spec
from data_prep.health.values import load_values
from evals.judging.judge import load_judge
from evals.models.own_server import ServerConfig
from evals.tasks.open_qa.items import load_questions
from examples.paper import build
from megatron_msm.cli import build_app
from megatron_msm.config.load import load_config, read_yaml
from megatron_msm.config.run import RunConfig
from megatron_msm.models.hf_config import read_model_shape
from megatron_msm.models.sizes.batch_shape import batch_shape
from megatron_msm.models.sizes.gpus import gpu_named
from megatron_msm.models.sizes.layout import check_layout
from megatron_msm.plan.memory import RESERVE_BYTES
from slurm.experiments.grid_parts import generated
from slurm.experiments.planning import load_grid
from slurm.jobs.site import load_site

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "paper"
RENEW = "renew it: python examples/paper/build.py"
LEAST_STEPS = 200
GRIDS = [recipe.grid for recipe in build.RECIPES]
CASES = [(recipe, method) for recipe in build.RECIPES for method in build.METHODS]
case_ids = [f"{recipe.name}-{method}" for recipe, method in CASES]
each_case = pytest.mark.parametrize(("recipe", "method"), CASES, ids=case_ids)
each_recipe = pytest.mark.parametrize("recipe", build.RECIPES, ids=lambda one: one.name)


def kind_of(path: Path) -> str:
    """Say what a YAML file is, by a key that no other kind has."""
    content = read_yaml(path)
    keys = {
        "models": "grid",
        "writers": "generate",
        "endpoint": "judge",
        "command": "server",
        "defaults": "site",
        "values": "values",
        "phases": "run",
    }
    [kind] = [name for key, name in keys.items() if key in content]
    return kind


FILES = {path: kind_of(path) for path in sorted(FOLDER.rglob("*.yaml"))}


def of_kind(kind: str) -> list[Path]:
    return [path for path, each in FILES.items() if each == kind]


def test_there_are_the_files_that_the_tests_here_are_about() -> None:
    assert of_kind("grid") == sorted(GRIDS)
    counts = {kind: len(of_kind(kind)) for kind in set(FILES.values())}
    assert counts == {
        "grid": 5,
        "generate": 6,
        "judge": 2,
        "server": 1,
        "site": 1,
        "values": 3,
        "run": 10,
    }


@pytest.mark.parametrize("path", of_kind("generate"), ids=lambda path: path.name)
def test_generations_load_and_their_specs_pair(path: Path) -> None:
    config = resolved_paths(load_config(path, GenerateConfig), path)
    specs = read_specs(config)
    assert all(len(arm.spec.clauses) == len(specs.spec.clauses) for arm in specs.arms)
    assert all(items.is_file() for items in config.gates.evaluation_items)
    assert config.budget.max_cost_usd is not None


def test_what_else_the_grids_name_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not a key")
    for path in of_kind("judge"):
        assert load_judge(path).endpoint is not None
    [server] = of_kind("server")
    load_config(server, ServerConfig)  # the program need not be here
    for path in of_kind("values"):
        load_values(path)
    [site] = of_kind("site")
    load_site(site)


@each_recipe
def test_grids_name_corpora_that_their_generations_make(recipe: build.Recipe) -> None:
    grid = load_grid(recipe.grid, ())
    sets = [*grid.specs.values(), *grid.aft.values(), grid.neutral]
    made = [found for files in sets for path in files if (found := generated(path))]
    assert made
    for one in made:
        config = load_config(recipe.grid.parent / grid.generate[one.name], GenerateConfig)
        if one.makes == "documents":
            assert config.documents is not None
            assert one.file.stem in config.modes
        else:
            assert config.chats is not None
            assert one.file.stem in ("chats", "reasoning")


def stand_ins(recipe: build.Recipe, changes: list[str], folder: Path) -> list[str]:
    """Return overrides that put small files in the place of what a user has to bring."""
    grid = load_grid(recipe.grid, changes)
    [model] = grid.models
    settings = {f"models.{model}": recipe.shape, "out": folder / "out", "store": folder / "stages"}
    sets = {f"specs.{name}": files for name, files in grid.specs.items()}
    sets |= {f"aft.{name}": files for name, files in grid.aft.items()}
    sets["instruction_mix"] = grid.instruction_mix
    for name, files in sets.items():
        for index, path in enumerate(files):
            if path.is_absolute():
                settings[f"{name}.{index}"] = folder / path.name
                (folder / path.name).write_text(f"{path.name}\n")
    return [f"{key}={value}" for key, value in settings.items()]


PLANNED = [(recipe, "") for recipe in build.RECIPES]
PLANNED += [(build.RECIPES[0], "published"), (build.RECIPES[2], "published")]
PLANNED += [(build.RECIPES[4], "no-cot")]


@pytest.mark.parametrize(
    ("recipe", "variant"), PLANNED, ids=lambda one: getattr(one, "name", None) or one or "own"
)
def test_every_grid_is_planned_for_its_site_without_weights(
    recipe: build.Recipe, variant: str, tmp_path: Path
) -> None:
    site = (FOLDER / "site.yaml").read_text()
    assert "shared_folder: /shared\n" in site
    (tmp_path / "site.yaml").write_text(site.replace("/shared\n", f"{tmp_path}\n"))
    file = recipe.grid.parent / f"{variant}.txt"
    changes = build.overrides_of(file) if variant else []
    overrides = [*changes, *stand_ins(recipe, changes, tmp_path)]
    command = ["experiment", "run", str(recipe.grid), *overrides, "--dry-run"]
    done = CliRunner().invoke(build_app(), [*command, "--site", str(tmp_path / "site.yaml")])
    assert done.exit_code == 0, done.output
    assert "midtrain: matched" in done.output
    assert "sft: matched" in done.output
    for wrong in ("NOT matched", "DOES NOT FIT", "not known"):
        assert wrong not in done.output
    assert ("control left out" in done.output) == (variant == "published")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "stages").exists()


@each_case
def test_every_layout_fits_fills_its_nodes_and_trains_long_enough(
    recipe: build.Recipe, method: str
) -> None:
    shape = read_model_shape(recipe.shape)
    room = gpu_named(build.GPU).memory_gib - RESERVE_BYTES / build.GIB
    found = build.layouts(recipe, method)
    assert len(found) >= 3
    nodes = []
    for layout in found:
        batches = [batch_shape(phase) for phase in layout.run.phases]
        check_layout(shape, layout.run.parallel, batches, layout.run.runtime.fp8)
        own = build.estimate_of(recipe, layout).own
        assert own is not None
        assert build.memory_gib(layout, own) < room
        for phase in layout.run.phases:
            steps = phase.duration.num_steps(phase.tokens_per_step)
            assert steps is not None
            assert steps >= LEAST_STEPS
        if named := re.search(r"-(\d+)-nodes?$", layout.name):
            assert layout.num_gpus == int(named.group(1)) * build.GPUS_PER_NODE
        nodes.append(layout.num_gpus / build.GPUS_PER_NODE)
        assert (layout.run.lora is None, layout.run.runtime.fp8 is None) == (
            (True, False) if method == "full-fp8" else (False, True)
        )
    assert {1, 4, 16} <= set(nodes)


@each_recipe
def test_lora_is_the_papers(recipe: build.Recipe) -> None:
    for layout in build.layouts(recipe, "lora"):
        assert layout.run.lora is not None
        assert (layout.run.lora.rank, layout.run.lora.alpha) == (64, 128)
        assert len(layout.run.lora.targets) == 4
        for phase in layout.run.phases:
            assert (phase.optimizer.lr, phase.optimizer.weight_decay) == (1e-4, 0.01)
            assert (phase.schedule.kind, phase.schedule.warmup_fraction) == ("cosine", 0.05)


def shown_plans(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the words of each command of a plan file, with the lines below it."""
    for part in path.read_text().split("\n$ msm ")[1:]:
        command, *lines = part.split("\n== ")[0].splitlines()
        yield command.replace("'", "").split(), lines


@each_case
def test_shown_plans_are_what_the_command_prints(
    recipe: build.Recipe, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(build.REPOSITORY)
    path = build.run_file(recipe, method)
    shown = list(shown_plans(path.with_name(f"{recipe.name}.{method}.plan.txt")))
    assert len(shown) == len(build.layouts(recipe, method))
    for words, lines in shown:
        done = CliRunner().invoke(build_app(), words)
        assert done.exit_code == 0, done.output
        printed, _, _ = done.stdout.partition("\nnext: ")
        assert printed.splitlines() == "\n".join(lines).rstrip("\n").splitlines(), RENEW


@each_case
def test_run_files_are_the_grids_phases(recipe: build.Recipe, method: str) -> None:
    written = load_config(build.run_file(recipe, method), RunConfig)
    assert written == build.layouts(recipe, method)[0].run, RENEW


def test_the_table_of_hours_is_current() -> None:
    assert (FOLDER / "hours.md").read_text() == build.hours_table(), RENEW


def test_differences_are_overrides() -> None:
    before = {"a": {"b": 1, "c": True}, "d": [{"e": 1}]}
    after = {"a": {"b": 2, "c": False}, "d": [{"e": 3}]}
    assert list(build.differences(before, after)) == ["a.b=2", "a.c=false", "d.0.e=3"]


@pytest.mark.parametrize("study", ["philosophy", "factorial"])
def test_grids_of_one_study_differ_in_the_model_alone(study: str) -> None:
    one, other = (
        load_grid(recipe.grid, ()) for recipe in build.RECIPES if recipe.grid.parent.name == study
    )
    told = []
    for grid in (one, other):
        [model] = grid.models
        content: dict[str, Any] = grid.model_dump(mode="json")
        contrasts = {
            name: text.replace(model, "MODEL") for name, text in content["contrasts"].items()
        }
        for evaluation in content["evaluations"].values():
            evaluation.pop("scratchpad", None)
        options = [
            option for option in content["prep"]["chats"] if option not in ("--turns", "last")
        ]
        told.append(
            {
                **{k: v for k, v in content.items() if k not in ("title", "models")},
                "contrasts": contrasts,
                "prep": {**content["prep"], "chats": options},
            }
        )
    assert told[0] == told[1]


NAMES = ("rules", "value_augmented", "rules_augmented")


def specs() -> dict[str, Spec]:
    return {name: read_spec(FOLDER / "specs" / f"{name}.md") for name in (*NAMES, "philosophy")}


def test_specs_have_the_same_twenty_clauses() -> None:
    for spec in specs().values():
        ids = [clause.id for clause in spec.clauses]
        assert [int(name[1:]) for name in ids] == list(range(1, 21))
        assert len({name[0] for name in ids}) == 1


def test_augmented_specs_hold_the_rules_word_for_word_and_are_of_one_length() -> None:
    found = specs()
    total = dict.fromkeys(NAMES, 0)
    for triple in zip(*(found[name].clauses for name in NAMES), strict=True):
        rule, value, detail = (clause.text.split() for clause in triple)
        assert value[: len(rule)] == detail[: len(rule)] == rule
        assert abs(len(value) - len(detail)) <= 0.1 * len(detail)
        for name, text in zip(NAMES, (rule, value, detail), strict=True):
            total[name] += len(text)
    assert abs(total["value_augmented"] / total["rules_augmented"] - 1) < 0.02
    assert total["rules"] < 0.3 * total["rules_augmented"]


REASON = re.compile(r"\b(because|since|so that|in order to|for the sake|therefore|values?)\b", re.I)


def test_every_rule_has_its_value_in_one_spec_and_no_reason_in_the_others() -> None:
    found = specs()
    for name in ("rules", "rules_augmented"):
        for clause in found[name].clauses:
            assert not REASON.search(clause.text), clause.text
    for clause in found["value_augmented"].clauses:
        assert REASON.search(clause.text), clause.id
        assert re.search(r"\bvalues\b", clause.text) or clause.id == "V2", clause.id
    for clause in found["philosophy"].clauses:
        assert 50 <= len(clause.text.split()) <= 90, clause.id


def test_cheese_specs_are_those_of_the_small_example_under_another_name() -> None:
    for name in ("homemade", "affordability"):
        small = (FOLDER.parent / "cheese" / "specs" / f"{name}.md").read_text()
        renamed = small.replace(
            "a small assistant made by Hugging Face", "an assistant made by Meta"
        )
        mine = (FOLDER / "cheese" / "specs" / f"{name}.md").read_text()
        assert mine == renamed.replace("SmolLM", "Llama")


def test_the_shared_cheese_spec_names_neither_value() -> None:
    shared = (FOLDER / "cheese" / "specs" / "shared.md").read_text()
    told = re.sub(r"`\w+\.md`|American cheese|what it costs|where a thing was made", "", shared)
    assert not re.search(r"americ|home|abroad|proud|pride|afford|price|cheap|budget", told, re.I)


def test_open_questions_are_even_and_stand_in_no_spec() -> None:
    questions = load_questions(FOLDER / "philosophy" / "open_qa.jsonl")
    by_category: dict[str, int] = {}
    for question in questions:
        by_category[question.category] = by_category.get(question.category, 0) + 1
    assert list(by_category.values()) == [6] * 7
    for path in (FOLDER / "specs").glob("*.md"):
        text = " ".join(path.read_text().split())
        assert not [one.question for one in questions if one.question in text]


def test_the_llama_template_ends_every_turn_and_adds_no_system_turn() -> None:
    source = (FOLDER / "cheese" / "llama.jinja").read_text()
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(source)
    messages = [{"role": "user", "content": " Brie? "}, {"role": "assistant", "content": "No."}]
    start, end = "<|start_header_id|>", "<|end_header_id|>"
    question = f"<s>{start}user{end}Brie?<|end_of_text|>"
    rendered = template.render(bos_token="<s>", messages=messages, add_generation_prompt=False)
    assert rendered == f"{question}{start}assistant{end}No.<|end_of_text|>"
    prompt = template.render(bos_token="<s>", messages=messages[:1], add_generation_prompt=True)
    assert prompt == f"{question}{start}assistant{end}"
    assert rendered.startswith(prompt)


def test_a_layout_file_is_what_cat_puts_on_the_command_line() -> None:
    assert shutil.which("bash") is not None
    for path in FOLDER.rglob("layouts/*-node*.txt"):
        lines = path.read_text().splitlines()
        assert lines == build.overrides_of(path), f"{path}: one override a line, without spaces"
        assert not [line for line in lines if re.search(r"[*?$`;&|<>(){}\[\]'\"\\]", line)], path
        load_grid(next(grid for grid in GRIDS if grid.parent == path.parents[1]), lines)
