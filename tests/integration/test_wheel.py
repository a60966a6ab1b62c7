"""A wheel built from the repository installs and runs, examples and templates included."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_installs_and_runs_away_from_the_checkout(tmp_path: Path) -> None:
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation")
    run(*build, "--outdir", tmp_path, REPOSITORY, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "evals/report/templates/report.html.j2" in names
    assert "megatron_msm/examples/cheese/choice.jsonl" in names
    assert not [name for name in names if name.startswith("tests/")]

    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", site, wheel, cwd=tmp_path)
    shown = run(
        sys.executable,
        "-c",
        "import megatron_msm, data_prep, evals, slurm; "
        "from megatron_msm.shipped_examples import examples_folder; "
        "print(megatron_msm.__file__, (examples_folder() / 'cheese' / 'choice.jsonl').is_file())",
        cwd=tmp_path,
        PYTHONPATH=str(site),
    )
    assert str(site) in shown
    assert shown.strip().endswith("True")
    # No arguments: the installed command's own entry points list themselves.
    assert "quickstart" in run(site / "bin" / "msm", "--help", cwd=tmp_path, PYTHONPATH=str(site))
