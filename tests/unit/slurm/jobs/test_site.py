"""site.yaml: what it refuses, and what a stage's changes do."""

from pathlib import Path

import pytest

from megatron_msm.errors import ConfigError
from slurm.jobs.site import Resources, SiteConfig, load_site
from slurm.kinds import KINDS

EXAMPLES = sorted((Path(__file__).parents[4] / "examples" / "sites").glob("*.yaml"))

REFUSED = {
    "unknown key": ("defaults: {partitoin: gpu}", ["partitoin", "Did you mean 'partition'", "qos"]),
    "unknown stage": ("stages: {train_all: {}}", ["stages.train_all", "'prep'", "'train'"]),
    "line break": ('defaults: {partition: "gpu\\nrm -rf /"}', ["defaults.partition"]),
    "variable name": ('environment: {"A B": "1"}', ["environment"]),
    "no time to work": ("defaults: {time_min: 4}", ["defaults.time_min 4", "signal_delay_s 180"]),
    "option's form": ('defaults: {sbatch: {"--gres": "gpu:1"}}', ["defaults.sbatch.--gres"]),
    "option of ours": ("stages: {prep: {sbatch: {output: x}}}", ["output: is set by megatron"]),
    "srun's of ours": ("defaults: {srun: {export: NONE}}", ["defaults.srun", "export: is set"]),
    "option off": (
        "defaults: {sbatch: {overcommit: false}}",
        ["overcommit: false", "leave it out"],
    ),
    "option's line break": ('defaults: {sbatch: {comment: "a\\nrm"}}', ["defaults.sbatch.comment"]),
    "GPUs twice": (
        "defaults: {gpus: true, sbatch: {gres: gpu:h100:8}}",
        ["defaults.sbatch.gres and gpus ask for the same"],
    ),
    "memory twice": (
        "{defaults: {sbatch: {mem-per-cpu: 4G}}, stages: {eval: {mem_gib: 8}}}",
        ["stages.eval.sbatch.mem-per-cpu and mem_gib ask for the same"],
    ),
    "image in a folder": ("container: {kind: pyxis, image: a.sqsh}", ["a.sqsh", "/ or ./"]),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_wrong_site_is_refused_with_what_is_valid(case: str, tmp_path: Path) -> None:
    text, expected = REFUSED[case]
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_site(path)
    assert all(part in str(error.value) for part in (str(path), *expected))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load_and_prep_asks_for_no_gpu(path: Path) -> None:
    site = load_site(path)
    assert site.resources("train").gpus is True
    assert site.resources("prep").gpus is False
    assert site.resources("prep").time_min == 120
    assert site.resources("train").ranks_per_node == 8


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_html_file_asks_for_no_node_of_its_own(path: Path) -> None:
    site = load_site(path)
    assert site.resources("train").exclusive is True
    for kind in set(KINDS) - {"train"}:
        assert site.resources(kind).exclusive is False, kind
        assert bool(site.resources(kind).gpus) is (kind == "eval"), kind
    assert (site.resources("report").time_min or 0) <= 60


def test_both_examples_are_shipped() -> None:
    assert [path.stem for path in EXAMPLES] == ["bare-metal", "ngc-container"]


def test_options_add_up_over_kinds_and_gpus_are_asked_for_by_those_that_use_them() -> None:
    defaults = Resources(sbatch={"gres": "gpu:h100:8", "comment": "all"}, srun={"mpi": "none"})
    stages = {
        "eval": Resources(sbatch={"gres": "gpu:l40:1"}),
        "prep": Resources(sbatch={"licenses": "fs:1"}, srun={"overlap": True}),
    }
    site = SiteConfig(defaults=defaults, stages=stages)
    assert site.resources("train").sbatch == {"gres": "gpu:h100:8", "comment": "all"}
    assert site.resources("eval").sbatch == {"gres": "gpu:l40:1", "comment": "all"}
    prep = site.resources("prep", Resources(partition="p", sbatch={"comment": "own"}))
    assert prep.sbatch == {"comment": "own", "licenses": "fs:1"}
    assert (prep.srun, prep.partition) == ({"mpi": "none", "overlap": True}, "p")
