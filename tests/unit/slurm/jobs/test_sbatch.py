"""The batch script, word for word; renew the golden files with MSM_RENEW_GOLDEN=1."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from megatron_msm.config.run import RunConfig
from megatron_msm.errors import ConfigError
from slurm.jobs.backends import SlurmBackend
from slurm.jobs.job import Job
from slurm.jobs.sbatch import node_shape, num_gpus, render_script
from slurm.jobs.site import ContainerConfig, Resources, SiteConfig, load_site
from slurm.jobs.submit import training_job

GOLDEN = Path(__file__).parent / "golden"
SITES = Path(__file__).parents[4] / "examples" / "sites"


def job(num_ranks: int = 16, folder: str = "/shared/runs/a/slurm") -> Job:
    return Job(
        name="midtrain",
        kind="train",
        module="megatron_msm.cli",
        arguments=("train", "/shared/runs/a/msm_run.yaml"),
        cwd=Path("/shared"),
        folder=Path(folder),
        num_ranks=num_ranks,
    )


@pytest.mark.parametrize("name", ["bare-metal", "ngc-container"])
def test_script_is_the_golden_file(name: str) -> None:
    text = render_script(job(), load_site(SITES / f"{name}.yaml"), after=("17", "18"))
    path = GOLDEN / f"{name}.sh"
    if "MSM_RENEW_GOLDEN" in os.environ:
        path.write_text(text)
    assert text == path.read_text(), "renew with MSM_RENEW_GOLDEN=1 when the change is meant"


def test_values_cannot_become_shell(tmp_path: Path) -> None:
    """The script's own shell part runs; nothing in a value does."""
    bad = f"$(touch {tmp_path}/ran)`touch {tmp_path}/ran`;touch {tmp_path}/ran #'\""
    site = SiteConfig(
        defaults=Resources(partition=bad),
        environment={"NAME": bad},
        python="/bin/echo",
        interface=bad,
    )
    text = render_script(job(2, f"{tmp_path}/{bad.replace('/', '_')}"), site, after=("1;touch x",))
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text('#!/bin/sh\necho "$NAME"\nexit 3\n')
    srun.chmod(0o755)
    done = subprocess.run(
        ["bash"],
        input=text,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "SLURM_JOB_ID": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == bad
    assert done.returncode == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_everything_a_site_may_ask_for_reaches_sbatch() -> None:
    asked = {
        "partition": "p",
        "account": "a",
        "qos": "q",
        "constraint": "h100&ib",
        "reservation": "r",
        "nodelist": "n[1-2]",
        "exclude": "n9",
    }
    resources = Resources(**asked, exclusive=True, time_min=10, cpus_per_task=3, mem_gib=1.5)
    site = SiteConfig(defaults=resources, mail_user="me@x.org", mail_type="FAIL,END")
    lines = render_script(job(2), site).splitlines()
    found = {shlex.split(line)[1] for line in lines if line.startswith("#SBATCH ")}
    wanted = {f"--{name}={value}" for name, value in asked.items()}
    wanted |= {"--exclusive", "--time=10", "--cpus-per-task=3", "--mem=1536M"}
    assert found >= wanted | {"--mail-user=me@x.org", "--mail-type=FAIL,END", "--signal=USR2@180"}


def test_further_options_reach_sbatch_and_srun_as_one_word_each() -> None:
    odd = "a b; $(touch x) 'q\" %j"
    sbatch = {"gres": "gpu:h100:8", "mem-per-cpu": "4G", "comment": odd, "overcommit": True}
    resources = Resources(sbatch=sbatch, srun={"cpu-bind": odd, "overlap": True, "threads": 2})
    lines = render_script(job(2), SiteConfig(defaults=resources)).splitlines()
    found = {shlex.split(line)[1] for line in lines if line.startswith("#SBATCH ")}
    assert found >= {f"--{k}={v}" for k, v in sbatch.items() if v is not True} | {"--overcommit"}
    [srun] = [shlex.split(line) for line in lines if line.startswith("srun ")]
    assert {f"--cpu-bind={odd}", "--overlap", "--threads=2"} <= set(srun)
    # Nothing is asked for that nobody named.
    assert not any(option.startswith(("--time", "--mem=", "--gpus")) for option in found)


def test_a_dry_run_prints_what_sbatch_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/given.sh\necho Submitted batch job 7\n')
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    for name in ("sbatch", "srun"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    resources = Resources(partition="a,b", sbatch={"gres": "gpu:h100:2"}, srun={"mpi": "none"})
    site = SiteConfig(defaults=resources, setup=("true",))
    asked = job(2, f"{tmp_path}/100 % sure/slurm")
    [started] = SlurmBackend(site).submit([asked], after=["5", "6:any"])
    assert started.job_id == "7"
    assert (tmp_path / "given.sh").read_text() == render_script(asked, site, after=["5", "6:any"])


def test_a_container_that_does_not_show_what_the_job_needs_is_refused() -> None:
    for mounts in (("/data:/shared",), ("/shared/runs",), ()):
        container = ContainerConfig(kind="pyxis", image="/i.sqsh", mounts=mounts)
        with pytest.raises(ConfigError, match=r"container.mounts: the job needs /shared"):
            render_script(job(1), SiteConfig(container=container))
    container = ContainerConfig(
        kind="pyxis", image="/i.sqsh", mounts=("/x:/y", "/shared:/shared:ro")
    )
    assert "--container-mounts=/x:/y,/shared:/shared:ro" in render_script(
        job(1), SiteConfig(container=container)
    )


@pytest.mark.parametrize("kind", ["pyxis", "apptainer"])
def test_a_container_shows_the_models_and_datasets_too(
    kind: Literal["pyxis", "apptainer"],
) -> None:
    reads = (Path("/models/base"), Path("/data/docs"))
    asked = job(1).model_copy(update={"reads": reads})
    image = {"kind": kind, "image": "/i.sif" if kind == "apptainer" else "/i.sqsh"}
    for missing in reads:
        mounts = ("/shared", *(str(path.parent) for path in reads if path != missing))
        container = ContainerConfig(**image, mounts=mounts)
        with pytest.raises(ConfigError, match=f"the job needs {missing}, and no mount shows it"):
            render_script(asked, SiteConfig(container=container))
    container = ContainerConfig(**image, mounts=("/shared", "/models", "/data:/data:ro"))
    assert "/data:/data:ro" in render_script(asked, SiteConfig(container=container))


def test_a_training_job_names_everything_that_it_reads() -> None:
    phase = {
        "name": "p",
        "data": {"prefixes": ["data/docs"]},
        "seq_length": 64,
        "global_batch_size": 4,
        "duration": {"steps": 3},
        "optimizer": {"lr": 1e-3},
        "validation": {"prefixes": ["/held/out"]},
    }
    content = {"out": "runs/a", "model": {"hf": "/models/base"}, "phases": [phase]}
    made = training_job(RunConfig.model_validate(content), SiteConfig())
    assert set(made.reads) == {
        *(Path("/models/base"), Path("/held/out"), Path.cwd() / "data" / "docs"),
    }


GPUS: dict[str, tuple[Resources, int]] = {
    "none": (Resources(), 0),
    "one a rank": (Resources(gpus=True, ranks_per_node=4), 8),
    "of a kind on each node": (Resources(ranks_per_node=4, sbatch={"gres": "gpu:h100:8"}), 16),
    "beside another gres": (Resources(sbatch={"gres": "lustre:1,gpu:2(S:0)"}), 2),
    "of all nodes": (Resources(ranks_per_node=4, sbatch={"gpus": "h100:5"}), 5),
    "a node": (Resources(ranks_per_node=4, sbatch={"gpus-per-node": 3}), 6),
    "a task": (Resources(sbatch={"gpus-per-task": "a100:1"}), 8),
    "no number": (Resources(sbatch={"gres": "gpu"}), 1),
}


@pytest.mark.parametrize("case", GPUS, ids=str)
def test_the_gpus_that_a_job_holds_are_counted(case: str) -> None:
    resources, expected = GPUS[case]
    assert num_gpus(resources, 8) == expected


def test_apptainer_wraps_the_interpreter() -> None:
    container = ContainerConfig(kind="apptainer", image="/i/a b.sif", mounts=("/shared",))
    text = render_script(job(1), SiteConfig(container=container))
    assert "apptainer exec --nv --bind /shared '/i/a b.sif' python3 -P -u -m submitit" in text


def test_a_folder_whose_name_submitit_would_change_is_refused() -> None:
    with pytest.raises(ConfigError, match="100%j"):
        render_script(job(1, "/shared/100%j/slurm"), SiteConfig())


def test_ranks_fill_whole_nodes() -> None:
    resources = Resources(ranks_per_node=8)
    assert node_shape(32, resources) == (4, 8)
    assert node_shape(4, resources) == (1, 4)
    assert node_shape(6, Resources()) == (1, 6)
    with pytest.raises(ConfigError, match="12 ranks do not fill nodes of ranks_per_node 8"):
        node_shape(12, resources)
