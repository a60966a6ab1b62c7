"""Axes of a grid: doses, later phases, zipped and excluded values, models, replay, seeds."""

import json
from pathlib import Path

import pytest

from megatron_msm.errors import ConfigError
from slurm.experiments.arms import Arm, Experiment
from slurm.experiments.contrasts import possible
from slurm.experiments.plan_table import matching
from slurm.stages.stage import Stage, in_order
from tests.unit.slurm.experiments.test_grid import built, grid_file, names

__all__ = ["grid_file"]
COUNTER = (
    "later=[{name: counter, chats: [mix.jsonl], phase: {seq_length: 32, global_batch_size: 2,"
    " duration: {steps: 4}, optimizer: {lr: 1e-4}}},"
    " {name: papers, documents: [neutral.jsonl], phase: {seq_length: 64, global_batch_size: 2,"
    " duration: {steps: 2}, optimizer: {lr: 1e-4}}}]"
)
FEW = (
    "controls={base: false, msm_only: false, instruction_mix_only: false, neutral: false}",
    "specs={a: [a.jsonl]}",
)


def identities(experiment: Experiment) -> set[str]:
    return {s.identity for s in in_order(experiment.final_stages()) if s.kind != "report"}


def arm(experiment: Experiment, name: str) -> Arm:
    return next(arm for arm in experiment.arms if arm.name == name)


def labels(stages: tuple[Stage, ...]) -> list[str]:
    return [stage.label for stage in stages]


def test_another_seed_renames_and_repeats_nothing(grid_file: Path) -> None:
    one, three = built(grid_file), built(grid_file, "seeds=[1234, 7, 8]")
    assert {a.name for a in one.arms} < {a.name for a in three.arms}
    assert identities(one) < identities(three)
    known = {stage.identity: stage.label for stage in in_order(three.final_stages())}
    for stage in in_order(one.final_stages()):
        if stage.kind != "report":
            assert known[stage.identity] == stage.label
    assert [a.name for a in three.arms if "msm(a)" in a.name] == [
        f"base+msm(a){aft}#{seed}" for seed in (1234, 7, 8) for aft in ("", "+aft(cheese)")
    ]


def test_a_dose_is_a_stage_before_preparation_and_the_whole_is_none(grid_file: Path) -> None:
    whole = built(grid_file, *FEW)
    assert identities(built(grid_file, *FEW, "dose={documents: 1.0}")) == identities(whole)
    dosed = built(grid_file, *FEW, "vary={dose.documents: [0.25, 1.0], dose.chats: [0.5, 1.0]}")
    assert identities(whole) < identities(dosed)
    name = "base+msm(a)+aft(cheese)[documents=0.25][chats=0.5]#1234"
    midtrain, sft = arm(dosed, name).training
    [_, docs] = midtrain.needs
    assert docs.label == "prep docs a 0.25"
    [subset] = docs.needs
    assert subset.command()[:2] == ("prep", "subset")
    assert subset.command()[3:5] == ("--share", "0.25")
    assert [need.label for need in sft.needs[1:]] == [
        "prep chats cheese 0.5",
        "prep chats instruction-mix",
    ]
    full = arm(dosed, name.replace("0.25", "1.0").replace("0.5", "1.0"))
    of_whole = arm(whole, "base+msm(a)+aft(cheese)#1234").training
    assert [s.identity for s in full.training] == [s.identity for s in of_whole]


def test_later_phases_follow_aft_one_after_the_other_with_an_arm_after_each(
    grid_file: Path,
) -> None:
    before, after = built(grid_file, *FEW), built(grid_file, *FEW, COUNTER)
    assert identities(before) < identities(after)
    assert names(after) == [
        "base+aft(cheese)",
        "base+aft(cheese)+then(counter)",
        "base+aft(cheese)+then(counter)+then(papers)",
        "base+msm(a)+aft(cheese)",
        "base+msm(a)+aft(cheese)+then(counter)",
        "base+msm(a)+aft(cheese)+then(counter)+then(papers)",
    ]
    last = arm(after, "base+msm(a)+aft(cheese)+then(counter)+then(papers)#1234")
    assert labels(last.training) == [
        "midtrain a #1234",
        "sft a+cheese #1234",
        "counter after a+cheese #1234",
        "papers after a+cheese #1234",
    ]
    for earlier, later in zip(last.training, last.training[1:], strict=False):
        assert later.needs[0].identity == earlier.identity
        assert earlier.output(earlier.makes[0]) in later.files["run.yaml"]
    counter, papers = last.training[2:]
    assert counter.needs[1].command()[1] == "chats"
    assert "33" in counter.needs[1].command()  # one position more than its own sequences
    assert papers.needs[1].command()[1] == "docs"
    assert all("choice" in each.evaluations for each in after.arms)
    assert matching(after.arms) == [
        "midtrain: matched, 10 steps and 2,560 tokens in every arm",
        "sft: matched, 5 steps and 1,280 tokens in every arm",
        "counter: matched, 4 steps and 256 tokens in every arm",
        "papers: matched, 2 steps and 256 tokens in every arm",
    ]
    tuned, alone = "base+msm(a)+aft(cheese)", "base+aft(cheese)"
    then = "+then(counter)"
    assert (
        "what counter takes from a beyond AFT alone (base cheese then counter)="
        f"+{tuned}{then},+{alone},-{tuned},-{alone}{then}"
    ) in after.contrasts


def test_zipped_fields_advance_together(grid_file: Path) -> None:
    zipped = "zipped=[{midtrain.duration.steps: [5, 20], midtrain.optimizer.lr: [1e-3, 5e-4]}]"
    assert names(built(grid_file, *FEW, zipped, "controls.aft_only=false")) == [
        "base+msm(a)+aft(cheese)[steps=5][lr=0.001]",
        "base+msm(a)+aft(cheese)[steps=20][lr=0.0005]",
    ]
    both = "vary={sft.optimizer.lr: [1e-4]}"
    found = names(built(grid_file, *FEW, zipped, both, "controls.aft_only=false"))
    assert found[0] == (
        "base+msm(a)+aft(cheese)[sft.optimizer.lr=0.0001][steps=5][midtrain.optimizer.lr=0.001]"
    )
    assert len(found) == 2


def test_lora_or_full_are_arms_whose_names_stand_in_contrasts(grid_file: Path) -> None:
    found = built(grid_file, "vary={run.lora: [null, {rank: 8, alpha: 16}]}")
    shown = [name for name in names(found) if name.startswith("base+msm(a)+aft(cheese)")]
    assert shown == [f"base+msm(a)+aft(cheese)[lora={v}]" for v in ("None", "rank:8;alpha:16")]
    lora = arm(found, f"{shown[1]}#1234").training
    assert all(stage.run is not None and stage.run.lora is not None for stage in lora)
    all_arms = [each.name for each in found.arms]
    assert sum("rank:8" in text for text in found.contrasts) == len(found.contrasts) / 2 > 0
    assert possible(found.contrasts, all_arms) == list(found.contrasts)


def test_a_stage_that_arms_share_is_called_after_what_they_share(grid_file: Path) -> None:
    vary = "vary={sft.optimizer.lr: [1e-3, 2e-3], midtrain.duration.steps: [5, 9]}"
    found = built(grid_file, *FEW, vary, "run.logging={wandb: {project: p}}")
    stages = [stage for each in found.arms for stage in each.training]
    shown: dict[str, set[tuple[str, str]]] = {}
    for stage in stages:
        assert stage.run is not None
        assert stage.run.logging.wandb is not None
        name = str(stage.run.logging.wandb.name)
        shown.setdefault(stage.identity, set()).add((stage.label, name))
    assert all(len(names) == 1 for names in shown.values()), shown
    assert ("midtrain a[steps=5] #1234", "base+msm(a)[steps=5]#1234") in set().union(
        *shown.values()
    )


def test_a_number_of_seeds_is_that_many(grid_file: Path) -> None:
    found = built(grid_file, *FEW, "seeds=8", "controls.aft_only=false")
    assert [a.name for a in found.arms] == [f"base+msm(a)+aft(cheese)#{n}" for n in range(1, 9)]
    assert found.contrasts == built(grid_file, *FEW, "controls.aft_only=false").contrasts


def test_arms_of_one_name_that_are_made_otherwise_are_refused(grid_file: Path) -> None:
    two = "vary={evaluations.choice.target: [a, b]}"
    with pytest.raises(ConfigError, match="two arms are called base, and are not made alike"):
        built(grid_file, two)
    assert len(built(grid_file, *FEW, two).arms) == 4


def test_any_axis_can_be_left_out(grid_file: Path) -> None:
    vary = "vary={dose.documents: [0.5, 1.0]}"
    left = built(
        grid_file,
        *FEW,
        COUNTER,
        vary,
        "seeds=[1, 2]",
        "exclude=[{spec: null, dose.documents: 0.5}, {then: papers},"
        " {dose.documents: 0.5, seed: 2}, {then: counter, spec: null}]",
    )
    assert names(left) == [
        "base+msm(a)+aft(cheese)[documents=0.5]#1",
        "base+msm(a)+aft(cheese)+then(counter)[documents=0.5]#1",
        "base+aft(cheese)[documents=1.0]#1",
        "base+msm(a)+aft(cheese)[documents=1.0]#1",
        "base+msm(a)+aft(cheese)+then(counter)[documents=1.0]#1",
        "base+aft(cheese)[documents=1.0]#2",
        "base+msm(a)+aft(cheese)[documents=1.0]#2",
        "base+msm(a)+aft(cheese)+then(counter)[documents=1.0]#2",
    ]


def test_a_model_has_fields_of_its_own(grid_file: Path) -> None:
    models = "models={small: hf, large: hf}"
    own = "per_model={large: {sft.optimizer.lr: 5e-5, run.parallel.tensor: 2}}"
    plain, set_ = built(grid_file, *FEW, models), built(grid_file, *FEW, models, own)
    assert names(plain) == names(set_)
    for name, is_same in (("small", True), ("large", False)):
        one, two = (arm(e, f"{name}+msm(a)+aft(cheese)#1234") for e in (plain, set_))
        same = [s.identity for s in one.training] == [s.identity for s in two.training]
        assert same is is_same
    assert two.training[1].num_ranks == 4
    assert two.training[1].run is not None
    assert two.training[1].run.phases[0].optimizer.lr == 5e-5


def test_replay_is_mixed_into_midtraining_alone(grid_file: Path) -> None:
    replay = "replay={files: [neutral.jsonl], share: 0.2}"
    found = built(grid_file, *FEW, replay)
    midtrain, sft = arm(found, "base+msm(a)+aft(cheese)#1234").training
    assert midtrain.run is not None
    assert sft.run is not None
    sources = midtrain.run.phases[0].data.sources
    assert [source.weight for source in sources] == [0.8, 0.2]
    assert [need.label for need in midtrain.needs[1:]] == ["prep docs a", "prep docs replay"]
    assert str(sources[1].prefix) == midtrain.needs[2].output("data")
    assert not sft.run.phases[0].data.sources


def test_options_of_a_phases_data_are_kept(grid_file: Path) -> None:
    packed = "midtrain.data={packing: {strategy: concatenate}}"
    [midtrain, _] = arm(built(grid_file, *FEW, packed), "base+msm(a)+aft(cheese)#1234").training
    assert midtrain.run is not None
    assert midtrain.run.phases[0].data.packing.strategy == "concatenate"


def test_further_options_of_preparation_go_where_they_belong(grid_file: Path) -> None:
    (grid_file.parent / "own.j2").write_text("{{ messages }}")
    more = "prep={docs: [--prepend-bos], chats: [--chat-template, own.j2]}"
    plain, other = built(grid_file, *FEW), built(grid_file, *FEW, more)
    made = {s.label: s for s in in_order(other.final_stages())}
    assert "--prepend-bos" in made["prep docs a"].command()
    assert "--prepend-bos" not in made["prep chats cheese"].command()
    template = grid_file.parent / "own.j2"
    assert str(template) in made["prep chats cheese"].command()
    assert template in [read.path for read in made["prep chats cheese"].reads]
    prepared = {s.identity for s in in_order(plain.final_stages()) if s.kind == "prep"}
    assert prepared.isdisjoint(identities(other))


def test_how_many_workers_prepare_data_makes_nothing_new(grid_file: Path) -> None:
    plain = identities(built(grid_file, *FEW))
    for options in ('[--workers, "3"]', '["--workers=5"]'):
        found = built(grid_file, *FEW, f"prep={{docs: {options}}}")
        assert identities(found) == plain
        [prepared] = [s for s in in_order(found.final_stages()) if s.label == "prep docs a"]
        assert any("--workers" in text for text in prepared.command())
    assert identities(built(grid_file, *FEW, "prep={docs: [--prepend-bos]}")) != plain


WRONG = {
    "option of the grid": (["prep={docs: ['--shard=0/2']}"], ["prep.docs: --shard is set by"]),
    "unequal zip": (
        ["zipped=[{midtrain.duration.steps: [1, 2], midtrain.optimizer.lr: [1e-3]}]"],
        ["zipped: as many values", "midtrain.duration.steps 2, midtrain.optimizer.lr 1"],
    ),
    "one field twice": (
        ["vary={midtrain.optimizer.lr: [1e-3]}", "zipped=[{midtrain.optimizer: [{lr: 1}]}]"],
        ["midtrain.optimizer.lr and midtrain.optimizer set one field"],
    ),
    "varied and a model's own": (
        ["vary={sft.optimizer.lr: [1e-3]}", "per_model={base: {sft.optimizer: {lr: 1e-5}}}"],
        ["per_model.base: sft.optimizer is varied too, by sft.optimizer.lr"],
    ),
    "no such model": (["per_model={x: {}}"], ["per_model: no model 'x'", "base"]),
    "no such field": (["per_model={base: {sft.lr: 1}}"], ["sft.lr"]),
    "no such axis": (["exclude=[{lr: 1}]"], ["exclude: no axis 'lr'", "then"]),
    "no such varied value": (
        ["vary={dose.documents: [0.5]}", "exclude=[{dose.documents: 0.25}]"],
        ["exclude: no dose.documents 0.25; there are 0.5"],
    ),
    "dose": (["dose.documents=0"], ["dose.documents"]),
    "share": (["replay={files: [neutral.jsonl], share: 1}"], ["replay.share"]),
    "later without data": (
        ["later=[{name: x, phase: {}}]"],
        ["give either `chats` or `documents`"],
    ),
    "later phase": (
        ["later=[{name: x, chats: [mix.jsonl], phase: {seq_length: 8}}]"],
        ["later.0.phase.global_batch_size"],
    ),
    "later name": (
        ["later=[{name: sft, chats: [mix.jsonl], phase: {}}]"],
        ["later: names must differ"],
    ),
    "datasets": (["midtrain.data={prefixes: [x]}"], ["midtrain.data.prefixes: is set by the grid"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_axes_are_refused(grid_file: Path, case: str) -> None:
    overrides, expected = WRONG[case]
    with pytest.raises(ConfigError) as error:
        built(grid_file, *overrides)
    assert all(part in str(error.value) for part in expected), error.value


def test_several_aft_sets_are_an_axis(grid_file: Path) -> None:
    (grid_file.parent / "other.jsonl").write_text(json.dumps({"text": "other"}))
    found = built(grid_file, *FEW, "aft={cheese: [aft.jsonl], other: [other.jsonl, mix.jsonl]}")
    assert names(found) == [
        "base+aft(cheese)",
        "base+aft(other)",
        "base+msm(a)+aft(cheese)",
        "base+msm(a)+aft(other)",
    ]
    one, two = (arm(found, f"base+msm(a)+aft({s})#1234").training for s in ("cheese", "other"))
    assert one[0].identity == two[0].identity
    assert one[1].identity != two[1].identity
