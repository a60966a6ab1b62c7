"""A grid's arms, what they share, and what the plan says of them."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from megatron_msm.config.load import load_config
from megatron_msm.errors import ConfigError
from slurm.experiments.arms import Arm, Experiment, build_experiment
from slurm.experiments.command import app
from slurm.experiments.estimates import estimate_training, misfits
from slurm.experiments.experiment_file import (
    experiment_path,
    read_started,
    stages_of_others,
    write_started,
)
from slurm.experiments.grid import GridConfig
from slurm.experiments.inputs import Inputs
from slurm.experiments.plan_table import matching, print_plan
from slurm.experiments.planning import load_grid, plan_experiment
from slurm.experiments.requests import asked_for, check_requests
from slurm.jobs.site import Resources, SiteConfig
from slurm.jobs.submitted import Submitted, write_submitted
from slurm.stages.graph import stage_job
from slurm.stages.stage import in_order
from tests.integration.training_runs import msm
from tests.unit.data_prep.tiny_tokenizer import write_tokenizer

GRID = """\
title: Study
out: out
models: {base: hf}
specs: {a: [a.jsonl], b: [b.jsonl]}
aft: {cheese: [aft.jsonl]}
neutral: [neutral.jsonl]
instruction_mix: [mix.jsonl]
run: {parallel: {data: 2}}
midtrain:
  {seq_length: 64, global_batch_size: 4, duration: {steps: 10}, optimizer: {lr: 1e-3}}
sft: {seq_length: 64, global_batch_size: 4, duration: {steps: 5}, optimizer: {lr: 1e-3}}
evaluations: {choice: {task: choice, items: items.jsonl, target: a}}
"""

MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


@pytest.fixture
def grid_file(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(MODEL))
    for name in ("a", "b", "aft", "neutral", "mix", "items"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def built(grid_file: Path, *overrides: str) -> Experiment:
    root = grid_file.parent / "out"
    return build_experiment(
        load_config(grid_file, GridConfig, overrides), Inputs(grid_file, root), root
    )


def grid(grid_file: Path, *overrides: str) -> GridConfig:
    """Return a grid whose `out` lies beside its file."""
    return load_config(grid_file, GridConfig, [f"out={grid_file.parent / 'out'}", *overrides])


def names(experiment: Experiment) -> list[str]:
    """Return the arms' names, without the seed that a grid has by default."""
    return [arm.name.removesuffix("#1234") for arm in experiment.arms]


def test_arms_are_named_by_lineage_with_controls(grid_file: Path) -> None:
    assert names(built(grid_file)) == [
        "base",
        "base+aft(instruction-mix)",
        "base+aft(cheese)",
        "base+msm(neutral)+aft(cheese)",
        "base+msm(a)",
        "base+msm(a)+aft(cheese)",
        "base+msm(b)",
        "base+msm(b)+aft(cheese)",
    ]


def test_controls_can_be_turned_off_and_arms_left_out(grid_file: Path) -> None:
    off = [f"controls.{name}=false" for name in ("base", "aft_only", "msm_only", "neutral")]
    experiment = built(
        grid_file,
        *off,
        "controls.instruction_mix_only=false",
        "seeds=[1, 2]",
        "exclude=[{spec: a, seed: 2}]",
    )
    assert names(experiment) == [
        "base+msm(a)+aft(cheese)#1",
        "base+msm(b)+aft(cheese)#1",
        "base+msm(b)+aft(cheese)#2",
    ]


def test_stages_are_shared(grid_file: Path) -> None:
    experiment = built(grid_file)
    stages = in_order(experiment.final_stages())
    kinds = [stage.label.split()[0] for stage in stages]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "eval": 8,
        "import": 1,
        "prep": 5,
        "sft": 5,
        "export": 7,
        "midtrain": 3,
        "report": 1,
    }
    arms = dict(zip(names(experiment), experiment.arms, strict=True))
    only, both = arms["base+msm(a)"], arms["base+msm(a)+aft(cheese)"]
    assert only.training[0].identity == both.training[0].identity
    config = both.training[1].files["run.yaml"]
    assert both.training[0].output("run/midtrain") in config
    assert config.count("/data\n") == 2  # the AFT set and the instruction mix


def test_an_arm_has_any_number_of_evaluations_and_one_export(grid_file: Path) -> None:
    two = "evaluations.b={task: choice, items: items.jsonl, target: b}"
    experiment = built(grid_file, two)
    arm = next(a for a in experiment.arms if a.name == "base+msm(a)+aft(cheese)#1234")
    assert list(arm.evaluations) == ["choice", "b"]
    exports = {need.identity for stage in arm.evaluations.values() for need in stage.needs}
    assert len(exports) == 1
    assert experiment.report is not None
    assert len(experiment.report.needs) == 16


def test_an_evaluation_reads_the_result_of_an_earlier_one(grid_file: Path) -> None:
    def arm(*overrides: str) -> Arm:
        why = "evaluations.why={task: reasons, of: choice}"
        return next(
            a for a in built(grid_file, *overrides, why).arms if a.name == "base+msm(a)#1234"
        )

    choice, why = arm().evaluations.values()
    assert choice in why.needs
    suite = json.loads(why.files["suite.yaml"])["evaluations"]["why"]
    result = Path(why.folder, f"{suite['of']}.json")
    assert os.path.normpath(result) == choice.output("choice.json")
    other = arm("evaluations.choice.target=b").evaluations["why"]
    assert other.identity != why.identity


def test_moved_model_other_logging_and_saves_make_no_stage_new(grid_file: Path) -> None:
    def made(*overrides: str) -> set[str]:
        return {s.identity for s in in_order(built(grid_file, *overrides).final_stages())}

    before = made()
    shutil.copytree(grid_file.parent / "hf", grid_file.parent / "moved")
    changes = [
        "models.base=moved",
        "run.logging={loss_by: [source]}",
        "run.runtime={threads_per_rank: 3}",
        "midtrain.checkpoint={save_interval_steps: 3}",
    ]
    assert made(*changes) == before
    assert made("midtrain.optimizer.lr=2e-3") != before


def test_runs_are_shown_by_what_their_model_has_gone_through(grid_file: Path) -> None:
    """Name, group and tags of W&B, and the names of jobs; none of it is the stage's identity."""
    plain = built(grid_file, "vary={dose.documents: [0.5, 1.0]}")
    tracked = built(
        grid_file,
        "vary={dose.documents: [0.5, 1.0]}",
        "run.logging={wandb: {project: p, tags: [mine]}}",
    )
    name = "base+msm(a)+aft(cheese)[documents=0.5]#1234"
    [one, two] = (next(a for a in e.arms if a.name == name) for e in (plain, tracked))
    assert [s.identity for s in one.training] == [s.identity for s in two.training]
    midtrain, sft = (stage.run for stage in two.training)
    assert midtrain is not None
    assert sft is not None
    known = {"project": "p", "group": "Study", "entity": None, "mode": "online"}
    assert midtrain.logging.model_dump()["wandb"] == {
        **known,
        "name": "base+msm(a)[documents=0.5]#1234",
        "tags": ("mine", "base", "a", "documents=0.5", "seed 1234", "midtrain"),
    }
    assert sft.logging.model_dump()["wandb"] == {
        **known,
        "name": name,
        "tags": ("mine", "base", "a", "cheese", "documents=0.5", "seed 1234", "sft"),
    }
    jobs = [stage_job(tracked.root, stage, SiteConfig()).name for stage in two.training]
    assert jobs == ["midtrain-a-documents=0.5-1234", "sft-a+cheese-documents=0.5-1234"]
    [evaluation] = two.evaluations.values()
    shown = stage_job(tracked.root, evaluation, SiteConfig()).name
    assert shown == "eval-choice-base+msm(a)+aft(cheese)-documents=0.5-1234"
    long = built(grid_file, f"specs={{{'a' * 70}: [a.jsonl]}}", "run.logging={wandb: {project: p}}")
    tags = long.arms[-1].training[0].run.logging.wandb.tags  # type: ignore[union-attr]
    assert "a" * 64 in tags


def test_dry_run_writes_nothing_and_reads_the_site(
    grid_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(grid_file.parent)
    before = sorted(grid_file.parent.rglob("*"))
    (grid_file.parent / "site.yaml").write_text("shared_folder: /elsewhere\n")
    for site, status, message in (
        (None, 0, ""),
        ("none.yaml", 2, "none.yaml"),
        ("site.yaml", 2, "not in the site's shared_folder /elsewhere"),
    ):
        options = ["--site", site] if site else []
        done = msm("experiment", "run", "grid.yaml", "--dry-run", *options, cwd=grid_file.parent)
        assert done.returncode == status, done.stderr
        assert message in done.stderr
    (grid_file.parent / "site.yaml").unlink()
    assert sorted(grid_file.parent.rglob("*")) == before


def test_a_change_in_the_tokenizers_settings_prepares_anew(grid_file: Path) -> None:
    def prepared() -> set[str]:
        stages = in_order(built(grid_file).final_stages())
        return {stage.identity for stage in stages if stage.kind == "prep"}

    before = prepared()
    path = grid_file.parent / "hf" / "tokenizer_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "eos_token": "<|other|>"}))
    assert not before & prepared()


def test_varied_field_makes_arms_and_unmatched_ones_are_named(grid_file: Path) -> None:
    experiment = built(grid_file, "vary={midtrain.duration.steps: [10, 20]}")
    assert "base+msm(a)[steps=20]" in names(experiment)
    grid = load_config(grid_file, GridConfig, ["vary={midtrain.duration.steps: [10, 20]}"])
    console = Console(width=200, record=True, quiet=False)
    print_plan(grid, experiment, console)
    assert "base+msm(a)[steps=20]#1234" in console.export_text()
    assert names(experiment).count("base") == 1
    assert matching(built(grid_file).arms) == [
        "midtrain: matched, 10 steps and 2,560 tokens in every arm",
        "sft: matched, 5 steps and 1,280 tokens in every arm",
    ]
    assert any("midtrain: NOT matched" in line for line in matching(experiment.arms))
    tokens = built(grid_file, "midtrain.duration={tokens: 2500}")
    assert matching(tokens.arms)[0] == matching(built(grid_file).arms)[0]
    epochs = built(grid_file, "midtrain.duration={epochs: 1}")
    assert "not known to be matched" in matching(epochs.arms)[0]


def test_plan_shows_arms_sharing_and_what_is_missing(grid_file: Path) -> None:
    grid = load_config(grid_file, GridConfig, ["neutral=[]"])
    console = Console(width=200, record=True, quiet=False)
    print_plan(grid, built(grid_file, "neutral=[]"), console)
    text = console.export_text()
    for expected in (
        "Study: 7 arms",
        "10 + 5   3,840",
        "control left out: neutral documents",
        "one seed",
        "GPU hours on h100",
        "still to run (estimated by `msm plan`)",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("midtrain.seqlength=5", "midtrain.seqlength: unknown key. Did you mean 'seq_length'?"),
        ("run.paralel={}", "run.paralel: unknown key. Did you mean 'parallel'?"),
        ("controls.nutral=true", "controls.nutral: unknown key. Did you mean 'neutral'?"),
        ("vary={sft.optimizer.lrr: [1]}", "vary: sft.optimizer.lrr: unknown key. Did you mean"),
    ],
)
def test_a_misspelt_field_of_a_grid_is_told_once(
    grid_file: Path, override: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_experiment(load_grid(grid_file, [override]), grid_file, writes=False)
    assert str(caught.value).startswith(f"{grid_file}: {expected}")
    assert "\n" not in str(caught.value)


def test_the_plan_reads_well_on_80_columns(grid_file: Path) -> None:
    grid = load_config(grid_file, GridConfig)
    experiment = built(grid_file)
    console = Console(width=80, record=True, quiet=False)
    print_plan(grid, experiment, console)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    longest = max(names(experiment), key=len)
    assert len(longest) > 25
    assert any(line.startswith(longest) for line in lines)
    stages = lines[next(i for i, line in enumerate(lines) if " stages " in line) :]
    labels = [stage.label for stage in in_order(experiment.final_stages())]
    assert all(any(label in line for line in stages) for label in labels)


LARGE = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}


def test_plan_says_what_does_not_fit_and_what_is_left(grid_file: Path) -> None:
    """An 8B model, fully fine-tuned on one GPU, needs 16 bytes a weight and more: about 128 GiB."""
    config = {**MODEL, **LARGE, "head_dim": 128, "vocab_size": 128256}
    (grid_file.parent / "hf" / "config.json").write_text(json.dumps(config))
    one_gpu = ["run.parallel={data: 1}", "seeds=[1]"]
    grid = load_config(grid_file, GridConfig, one_gpu)
    experiment = built(grid_file, *one_gpu)
    console = Console(width=200, record=True, quiet=False)
    print_plan(grid, experiment, console)
    text = console.export_text()
    assert text.count("DOES NOT FIT") == 8  # 3 midtraining and 5 SFT stages
    assert "DOES NOT FIT  midtrain a #1: its fullest rank needs" in text
    assert "of the h100's 79 GiB" in text or "of the h100's 80 GiB" in text
    assert "30 jobs to run" in text

    stages = in_order(experiment.final_stages())
    split = in_order(built(grid_file, "run.parallel={tensor: 8}").final_stages())
    assert not misfits(split, estimate_training(split, "h100"))
    assert len(misfits(stages, estimate_training(stages, "h100"))) == 8


def test_shipped_cheese_study_has_every_control_that_its_data_allow(grid_file: Path) -> None:
    cheese = Path(__file__).parents[4] / "examples" / "cheese" / "grid.yaml"
    grid = load_config(cheese, GridConfig, [f"models={{m: {grid_file.parent / 'hf'}}}"])
    experiment = build_experiment(grid, Inputs(cheese, grid_file.parent), grid_file.parent)
    assert names(experiment) == [
        "m",
        "m+aft(cheese)",
        "m+msm(neutral)+aft(cheese)",
        "m+msm(homemade)",
        "m+msm(homemade)+aft(cheese)",
        "m+msm(affordability)",
        "m+msm(affordability)+aft(cheese)",
    ]
    assert all("NOT" not in line for line in matching(experiment.arms))


WRONG = {
    "unknown key": (["specs_=1"], ["specs_", "Did you mean 'specs'"]),
    "phase field": (["midtrain.lr=1"], ["midtrain.lr"]),
    "phase name": (["midtrain.name=x"], ["midtrain.name: is set by the grid"]),
    "one name for all runs": (
        ["run.logging={wandb: {project: p, name: x}}"],
        ["run.logging.wandb.name: is set by the grid"],
    ),
    "shared field": (["run.parallel.tensr=2"], ["run.parallel.tensr"]),
    "batch": (["midtrain.global_batch_size=3"], ["global_batch_size 3"]),
    "no file": (["specs.a=[none.jsonl]"], ["none.jsonl", "no such file"]),
    "no such value": (["exclude=[{spec: c}]"], ["no spec 'c'", "a, b"]),
    "aft without sft": (["sft=null"], ["no `sft` phase"]),
    "choice as before": (
        ["choice={items: items.jsonl, target: a}"],
        ["evaluations: {choice: {task: choice, items: items.jsonl, target: a}}"],
    ),
    "evaluation without task": (["evaluations={x: {items: i}}"], ["evaluations.x: needs `task`"]),
    "evaluation of none": (
        ["evaluations={x: {task: reasons, of: y}, y: {task: choice}}"],
        ["evaluations.x.of: no evaluation 'y' stands before it"],
    ),
    "evaluation's file": (
        ["evaluations={x: {task: choice, items: none.jsonl}}"],
        ["none.jsonl", "no such file"],
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_wrong_grid_is_refused(grid_file: Path, case: str) -> None:
    overrides, expected = WRONG[case]
    with pytest.raises(ConfigError) as error:
        built(grid_file, *overrides)
    assert all(part in str(error.value) for part in expected)


def test_two_grid_files_of_one_folder_know_only_their_own(
    grid_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are local processes here; what is shared is not cancelled with one of them."""
    folder = grid_file.parent
    other = folder / "other.yaml"
    other.write_text(
        grid_file.read_text().replace("{a: [a.jsonl], b: [b.jsonl]}", "{a: [a.jsonl]}")
    )
    for path in (grid_file, other):
        write_started(built(path), grid(path), path)
    root = folder / "out"
    mine, others = read_started(grid(grid_file), grid_file), read_started(grid(other), other)
    assert len(mine.arms) == 8
    assert len(others.arms) == 6
    assert set(stages_of_others(grid(grid_file), grid_file)) == set(others.labels)
    assert set(mine.labels) - set(others.labels)

    cancelled: list[str] = []
    for stage in mine.labels:
        (root / stage / "job").mkdir(parents=True)
        write_submitted(
            root / stage / "job",
            Submitted(backend="local", job_id=stage.name, host="h", logs=root),
        )
    monkeypatch.setattr(Submitted, "is_live", lambda self: True)
    monkeypatch.setattr(Submitted, "cancel", lambda self: cancelled.append(self.job_id))
    out = f"out={root}"
    done = CliRunner().invoke(app, ["cancel", str(grid_file), out])
    assert done.exit_code == 0, done.output
    assert set(cancelled) == {folder.name for folder in set(mine.labels) - set(others.labels)}
    assert done.output.count("kept ") == len(set(mine.labels) & set(others.labels))

    other.unlink()
    experiment_path(grid(grid_file), other).unlink()
    cancelled.clear()
    write_started(built(grid_file), grid(grid_file), grid_file)
    arms = {each.name.removesuffix("#1234"): set(each.stages) for each in mine.arms}

    def cancel(name: str, *others: str) -> None:
        """Cancel an arm; what none of the arms but `others` needs ends with it."""
        cancelled.clear()
        CliRunner().invoke(app, ["cancel", str(grid_file), out, "--arm", name])
        kept = set().union(*(arms[each] for each in arms if each not in (name, *others)))
        assert set(cancelled) == {folder.name for folder in arms[name] - kept} != set()
        assert set(read_started(grid(grid_file), grid_file).wanted()) == kept

    cancel("base+msm(a)")
    # What only these two had in common is needed by none now.
    cancel("base+msm(a)+aft(cheese)", "base+msm(a)")
    assert any(stage.startswith("train-") for stage in cancelled)
    # Running one of them again asks for nothing of the other.
    again = write_started(
        built(grid_file), grid(grid_file), grid_file, only=["base+msm(a)+aft(cheese)"]
    )
    assert again.cancelled == ("base+msm(a)#1234",)
    assert arms["base+msm(a)+aft(cheese)"] <= set(again.wanted())
    assert write_started(built(grid_file), grid(grid_file), grid_file).cancelled == ()


def test_experiments_of_one_store_share_stages_and_nothing_else(
    grid_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file with another `out` is another experiment; a cancelled one needs nothing."""
    monkeypatch.chdir(grid_file.parent)
    outs = {name: [f"out={name}", "store=store"] for name in ("one", "two")}
    for overrides in outs.values():
        made = load_config(grid_file, GridConfig, overrides)
        assert made.root == grid_file.parent / "store"
        write_started(built(grid_file, *overrides), made, grid_file)
    assert not Path("one").exists()
    assert len(list(Path("store/experiments").glob("*.json"))) == 2

    mine = load_config(grid_file, GridConfig, outs["one"])
    started = read_started(mine, grid_file)
    live = next(iter(started.labels))
    (mine.root / live / "job").mkdir(parents=True)
    write_submitted(
        mine.root / live / "job",
        Submitted(backend="local", job_id="17", host="h", logs=mine.root / live / "job/logs"),
    )
    cancelled: list[str] = []
    monkeypatch.setattr(Submitted, "is_live", lambda self: True)
    monkeypatch.setattr(Submitted, "cancel", lambda self: cancelled.append(self.job_id))
    assert set(stages_of_others(mine, grid_file)) == set(started.labels)
    done = CliRunner().invoke(app, ["cancel", str(grid_file), *outs["one"]])
    assert (done.exit_code, cancelled) == (0, []), done.output
    assert done.output.startswith("kept       job 17")
    done = CliRunner().invoke(app, ["cancel", str(grid_file), *outs["two"]])
    assert (done.exit_code, cancelled) == (0, ["17"]), done.output
    write_started(built(grid_file, *outs["one"]), mine, grid_file)
    other = load_config(grid_file, GridConfig, outs["two"])
    assert set(stages_of_others(other, grid_file)) == set(started.labels)


def test_what_generations_keep_is_an_experiments_own(grid_file: Path) -> None:
    (grid_file.parent / "g.yaml").write_text("spec: grid.yaml\nendpoints: {}\n")
    overrides = ["generate={pair: g.yaml}", "specs={a: ['generate:pair/documents/a.jsonl']}"]
    kept = {}
    for name, places in {"alone": [], "shared": ["store=s", "out=/o"]}.items():
        stages = in_order(built(grid_file, *overrides, *places).final_stages())
        [made] = [stage for stage in stages if stage.kind == "generate"]
        kept[name] = json.loads(made.files["generate.yaml"])["kept_in"], made.identity
    assert kept["alone"][0] == "generated/pair-documents"
    assert kept["shared"][0] == "/o/generated/pair-documents"
    assert kept["alone"][1] == kept["shared"][1]


def test_a_model_has_its_own_layout_and_nodes_and_the_plan_shows_them(grid_file: Path) -> None:
    per_model = (
        "per_model={large: {run.parallel: {tensor: 8}, resources.train: "
        "{partition: big, time_min: 2880, gpu_kind: h200, ranks_per_node: 4}}}"
    )
    overrides = ["models={small: hf, large: hf}", "resources={eval: {time_min: 30}}", per_model]
    experiment = built(grid_file, *overrides)
    plain = built(grid_file, "models={small: hf, large: hf}")
    stages = in_order(experiment.final_stages())
    known = {stage.identity for stage in in_order(plain.final_stages())}
    site = SiteConfig(
        gpu_kind="h100",
        defaults=Resources(partition="normal", time_min=600, gpus=True, ranks_per_node=2),
    )
    asked = [(stage, asked_for(stage, site)) for stage in stages]
    assert {t for s, t in asked if s.kind == "train" and s.num_ranks == 8} == {
        "2 x 4 GPU, big, 2880 min"
    }
    assert {t for s, t in asked if s.kind == "train" and s.num_ranks == 2} == {
        "1 x 2 GPU, normal, 600 min"
    }
    assert {t for s, t in asked if s.kind == "eval"} == {"1 x 1 GPU, normal, 30 min"}
    labels = [stage.label for stage in stages if stage.kind == "train"]
    assert len(set(labels)) == len(labels)
    # What a job asks for makes no stage new; a layout does.
    small = [s for s, _ in asked if s.kind == "train" and s.num_ranks == 2]
    assert small
    assert all(stage.identity in known for stage in small)

    console = Console(width=200, record=True, file=io.StringIO())
    print_plan(grid(grid_file, *overrides), experiment, console, site=site)
    shown = console.export_text()
    assert "GPU hours on h100 and h200" in shown
    assert "2 x 4 GPU, big, 2880 min" in shown

    check_requests(stages, site)
    narrow = site.model_copy(update={"defaults": Resources(ranks_per_node=3, time_min=4)})
    with pytest.raises(ConfigError, match="nothing was queued") as error:
        check_requests(stages, narrow)
    assert "8 ranks do not fill nodes of ranks_per_node 4" not in str(error.value)
    assert "time_min 4 leaves no time to work" in str(error.value)


def test_quick_changes_the_grid_first_and_options_after_it(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(
        GRID + "seeds: 8\nquick: {seeds: 2, controls.neutral: false, specs: {a: [a.jsonl]}}\n"
    )
    whole, quick = load_grid(path, ()), load_grid(path, (), quick=True)
    assert len(whole.seeds) == 8
    assert whole.controls.neutral
    assert len(whole.specs) == 2
    assert quick.seeds == (1, 2)
    assert not quick.controls.neutral
    assert list(quick.specs) == ["a"]
    assert quick.controls.aft_only
    assert load_grid(path, ["seeds=3"], quick=True).seeds == (1, 2, 3)
    assert experiment_path(quick, path) == experiment_path(whole, path)


@pytest.mark.parametrize(
    ("quick", "told"),
    [("{seed: 2}", "seed"), ("{midtrain.duration: 3}", "midtrain"), ("{}", "quick")],
)
def test_a_wrong_quick_is_refused(tmp_path: Path, quick: str, told: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID + f"quick: {quick}\n")
    with pytest.raises(ConfigError, match=told):
        load_grid(path, (), quick=True)
