"""What makes a stage new, what does not, why it is new, and keeping it under edited code."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_msm.config.run import RunConfig
from slurm.kinds import KINDS, Kind
from slurm.stages import code_version
from slurm.stages.accepted import FinishedUnderOtherCode
from slurm.stages.code_version import source_version
from slurm.stages.facts import stage_facts
from slurm.stages.ingredients import leaves, run_settings
from slurm.stages.record import check_inputs
from slurm.stages.stage import Stage
from slurm.stages.why import differences, nearest_earlier
from tests.unit.slurm.stages.test_graph import finish, outside, stage

BEFORE = '''\
"""A module."""

# A comment.
import os


class A:
    """A class."""

    x: int = 1
    """A field."""


def f(a: int) -> str:
    """Return text."""
    return f"{a} #"  # why
'''
SAME = {
    "comment": BEFORE.replace("# A comment.", "# Another one.\n# And more."),
    "docstrings": BEFORE.replace("A module", "M")
    .replace("Return text", "R")
    .replace("A class", "C"),
    "layout": BEFORE.replace('return f"{a} #"  # why', 'return (\n        f"{a} #"\n    )'),
}
OTHER = {
    "text in code": BEFORE.replace('{a} #"', '{a} ##"'),
    "default": BEFORE.replace("x: int = 1", "x: int = 2"),
    "annotation, which pydantic reads": BEFORE.replace("x: int", "x: float"),
}


@pytest.mark.parametrize("case", [*SAME, *OTHER])
def test_code_is_what_it_does(case: str, tmp_path: Path) -> None:
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(BEFORE)
    after.write_text({**SAME, **OTHER}[case])
    assert before.read_text() != after.read_text()
    assert (source_version(before) == source_version(after)) is (case in SAME)


def read_anew() -> None:
    """A process reads a package once; here one is edited under it."""
    code_version._package_version.cache_clear()
    code_version._data_versions.cache_clear()


def shipped_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package that reads prompts where the package of evaluations is; return its folder."""
    package = folder / "asking"
    for name in ("tasks/deep", "report"):
        (package / name).mkdir(parents=True)
        (package / name.split("/")[0] / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "tasks" / "deep" / "frame.yaml").write_text("system: You are {name}.\n")
    (package / "tasks" / "items.jsonl").write_text('{"id": "a"}\n')
    (package / "report" / "page.html.j2").write_text("<p>")
    kind = Kind(("asking",), data=("asking.tasks",))
    monkeypatch.setattr(code_version, "KINDS", {**KINDS, "eval": kind})
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "asking", raising=False)
    read_anew()
    return package


@pytest.mark.parametrize("name", ["tasks/deep/frame.yaml", "tasks/items.jsonl"])
def test_an_edited_prompt_is_another_evaluation_and_why_names_its_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shipped_package(tmp_path, monkeypatch)
    source = tmp_path / "docs.jsonl"
    source.write_text("content\n")
    first = stage(source, kind="eval")
    finish(tmp_path, first)
    assert check_inputs(tmp_path / first.folder) is None
    (package / name).write_text("another text\n")
    read_anew()
    second = stage(source, kind="eval")
    assert second.identity != first.identity
    assert differences(first.ingredients, second.ingredients) == [
        f"code       asking/{name} was edited (`--accept code` keeps what is finished)"
    ]
    assert "changed since the stage was planned" in str(check_inputs(tmp_path / first.folder))


def test_what_only_a_report_reads_is_no_other_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shipped_package(tmp_path, monkeypatch)
    source = tmp_path / "docs.jsonl"
    source.write_text("content\n")
    first = stage(source, kind="eval")
    (package / "report" / "page.html.j2").write_text("<b>")
    read_anew()
    assert stage(source, kind="eval").identity == first.identity
    (package / "tasks" / "more.yaml").write_text("more\n")
    (package / "tasks" / "items.jsonl").unlink()
    read_anew()
    assert differences(first.ingredients, stage(source, kind="eval").ingredients) == [
        "code       asking/tasks/items.jsonl was removed (`--accept code` keeps what is finished)",
        "code       asking/tasks/more.yaml is new (`--accept code` keeps what is finished)",
    ]


def test_every_data_file_that_is_shipped_counts_for_some_kind() -> None:
    root = Path(code_version.__file__).parents[2]
    shipped = {
        str(path.relative_to(root))
        for package in ("evals", "data_prep", "megatron_msm")
        for path in (root / package).rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc")
        and path.name != "py.typed"
        and not path.name.endswith(".start.yaml")  # what users begin with; no stage reads it
    }
    counted = {name for kind in KINDS for name in code_version.code_versions(kind)}
    assert len(shipped) > 50
    assert shipped <= counted
    evaluation = code_version.code_versions("eval")
    assert "evals/tasks/agentic/scenarios/act/blackmail.yaml" in evaluation
    assert "evals/reference/figures.json" not in evaluation
    assert "evals/reference/figures.json" in code_version.code_versions("report")


def run(**changes: object) -> RunConfig:
    phase = {
        "name": "midtrain",
        "data": {"prefixes": ["d"]},
        "seq_length": 64,
        "global_batch_size": 4,
        "duration": {"steps": 3},
        "optimizer": {"lr": 1e-3},
    }
    phase |= {k: v for k, v in changes.items() if k in ("optimizer", "checkpoint", "loss_spike")}
    whole = {k: v for k, v in changes.items() if k not in phase}
    content = {"out": "o", "model": {"checkpoint": "c"}, **whole, "phases": [phase]}
    return RunConfig.model_validate(content)


def settings(**changes: object) -> list[tuple[str, str]]:
    return list(leaves(run_settings(run(**changes))))


NO_NEW_RESULT: dict[str, dict[str, object]] = {
    "logging": {"logging": {"loss_by": ["source"], "wandb": {"project": "p"}}},
    "threads": {"runtime": {"threads_per_rank": 3}},
    "time-out": {"runtime": {"timeout_min": 5}},
    "saves": {"checkpoint": {"save_interval_steps": 7, "asynchronous": True}},
    "folder": {"out": "elsewhere"},
    "a default written out": {"optimizer": {"lr": 1e-3, "clip_grad_norm": 1.0}},
}
NEW_RESULT: dict[str, dict[str, object]] = {
    "rate": {"optimizer": {"lr": 2e-3}},
    "seed": {"seed": 7},
    "dtype": {"runtime": {"dtype": "fp32"}},
    "layout": {"parallel": {"data": 2}},
}


@pytest.mark.parametrize("case", [*NO_NEW_RESULT, *NEW_RESULT])
def test_only_settings_that_change_weights_count(case: str) -> None:
    changed = settings(**{**NO_NEW_RESULT, **NEW_RESULT}[case])
    assert (changed == settings()) is (case in NO_NEW_RESULT)


def test_saves_count_where_a_loss_spike_goes_back_to_them() -> None:
    spike = {"loss_spike": {"above_nats": 1.0}}
    often = {"checkpoint": {"save_interval_steps": 7}}
    assert settings(**spike, **often) != settings(**spike)


def planned(path: Path, *needs: Stage, **settings: object) -> Stage:
    return replace(stage(path, *needs, makes="made.txt"), settings=settings)


def test_why_names_what_differs_from_the_nearest_earlier_stage(tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text("content\n")
    first = planned(source, lr=1, deep={"steps": [5]})
    finish(tmp_path, first)
    finish(tmp_path, replace(planned(source, lr=9, deep={"steps": [6]}), label="another"))
    second = planned(source, lr=2, deep={"steps": [5]}, new=True)
    earlier = nearest_earlier(tmp_path, second)
    assert earlier is not None
    assert earlier.identity == first.identity
    assert differences(earlier.ingredients, second.ingredients) == [
        "setting    lr: 1 -> 2",
        "setting    new: nothing -> True",
    ]
    source.write_text("other content\n")
    changed = planned(source, lr=1, deep={"steps": [5]})
    assert differences(first.ingredients, changed.ingredients) == [
        f"input      content of {source} has changed"
    ]
    built_on_it = differences(
        planned(source, first).ingredients, planned(source, changed).ingredients
    )
    assert built_on_it == ["stage      builds on stage is new itself: ask why of it"]


def test_finished_stages_are_kept_under_edited_code_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text("content\n")

    def graph() -> tuple[Stage, Stage, Stage]:
        keep = FinishedUnderOtherCode(tmp_path).accept
        first = keep(stage(source))
        second = keep(replace(stage(source, first), label="second"))
        return first, second, keep(replace(stage(source, first, second), label="never made"))

    first, second, _ = graph()
    for each in (first, second):
        finish(tmp_path, each)
    monkeypatch.setattr(code_version, "_package_version", lambda package: f"edited {package}")
    assert stage(source).identity != first.identity
    kept, kept_second, new = graph()
    assert (kept.identity, kept_second.identity) == (first.identity, second.identity)
    assert new.record().code["evals"] == "edited evals"
    assert new.needs[1].identity == second.identity
    assert any(
        "evals was edited" in line
        for line in differences(first.ingredients, stage(source).ingredients)
    )
    new.write(tmp_path)
    facts = stage_facts(tmp_path, {kept.folder: kept.label, kept_second.folder: kept_second.label})
    assert all("kept from earlier code" in fact.made for fact in facts)

    source.write_text("other content\n")
    assert graph()[0].identity == stage(source).identity != first.identity


def test_a_tokenizer_folder_moved_with_its_files_makes_nothing_new(tmp_path: Path) -> None:
    found = []
    for name in ("here", "moved"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tokenizer.json").write_text("{}")
        made = Stage(
            kind="prep",
            label=name,
            arguments=("prep", "docs", "--tokenizer", str(folder)),
            makes=("data",),
            reads=(outside(folder / "tokenizer.json"),),
            folders=(folder,),
        )
        found.append(made.identity)
    assert found[0] == found[1]
