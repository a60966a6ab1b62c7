"""A path that cannot be written is refused in one sentence, before any input is looked at."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_msm.cli import main
from megatron_msm.errors import ConfigError
from megatron_msm.formats.output_paths import check_output_file, check_output_folder

RUN = """\
out: {out}
model: {{hf: missing}}
phases:
  - name: midtrain
    data: {{prefixes: [missing]}}
    seq_length: 64
    global_batch_size: 4
    duration: {{steps: 10}}
    optimizer: {{lr: 1e-3}}
"""
GRID = """\
title: Study
out: {out}
models: {{base: missing}}
specs: {{a: [missing.jsonl]}}
aft: {{b: [missing.jsonl]}}
run: {{}}
midtrain: {{seq_length: 64, global_batch_size: 4, duration: {{steps: 10}}, optimizer: {{lr: 1e-3}}}}
sft: {{seq_length: 64, global_batch_size: 4, duration: {{steps: 5}}, optimizer: {{lr: 1e-3}}}}
evaluations: {{choice: {{task: choice, items: missing.jsonl}}}}
"""
# Inputs are missing on purpose: a message that names the output came before they were read.
TO_FILES = {
    "eval choice": "eval choice missing --items missing.jsonl --out {out}",
    "eval report": "eval report {out} --result missing.json",
    "experiment report": "experiment report missing.yaml {out}",
    "generate page": "generate page missing.yaml --out {out}",
    "generate import": "generate import missing.jsonl --out {out} --kind documents",
    "generate balance": "generate balance missing missing --html {out}",
    "prep health": "prep health missing.jsonl --html {out}",
    "prep show": "prep show missing --html {out}",
    "prep stats": "prep stats missing --png {out}",
    "prep subset": "prep subset missing.jsonl --share 0.5 --out {out}",
    "prep dedup": "prep dedup missing.jsonl --out {out}",
    "prep dedup --drops": "prep dedup missing.jsonl --drops {out}",
}
TO_FOLDERS = {
    "convert import": "convert import missing {out}",
    "convert export": "convert export missing {out}",
    "eval run": "eval run missing.yaml missing --out {out}",
    "experiment run": "experiment run grid.yaml --local",
    "experiment run --dry-run": "experiment run grid.yaml --dry-run",
    "generate select": "generate select missing.jsonl --documents 5 --out {out}",
    "quickstart": "quickstart --docs missing.jsonl --out {out}",
    "train": "train run.yaml",
    "train --plan-only": "train run.yaml --plan-only",
}
BAD_FILES = ("folder", "file/below", "/proc/here")
BAD_FOLDERS = ("file", "file/below", "/proc/here/below", "/dev/null/below")
CASES = [
    *((name, bad) for name in TO_FILES for bad in BAD_FILES),
    *((name, bad) for name in TO_FOLDERS for bad in BAD_FOLDERS),
]


@pytest.mark.parametrize(("name", "bad"), CASES, ids=[f"{name} {bad}" for name, bad in CASES])
def test_an_output_that_cannot_be_written_is_named(
    name: str,
    bad: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run.yaml").write_text(RUN.format(out=bad))
    (tmp_path / "grid.yaml").write_text(GRID.format(out=bad))
    before = sorted(tmp_path.rglob("*"))
    words = {**TO_FILES, **TO_FOLDERS}[name].format(out=bad).split()
    monkeypatch.setattr(sys, "argv", ["msm", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {bad}: ")
    assert message.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_what_can_be_written_passes_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "below")
    check_output_file(tmp_path / "file")
    check_output_file(tmp_path / "new" / "file")
    check_output_file(None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir(mode=0o555)
        (folder / "hidden").mkdir(mode=0o000)
        yield folder
        (folder / "hidden").chmod(0o700)


@pytest.mark.parametrize("where", ["closed/new", "closed", "hidden/new"])
def test_a_folder_without_permission_is_refused(readable_by_all: Path, where: str) -> None:
    path = readable_by_all / where
    if os.geteuid() != 0:
        with pytest.raises(ConfigError, match="nothing can be written there"):
            check_output_folder(path)
        return
    program = (
        "import os, sys; from pathlib import Path; "
        "from megatron_msm.formats.output_paths import check_output_folder; "
        "from megatron_msm.errors import ConfigError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: check_output_folder(Path(sys.argv[1]))\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"{path}: nothing can be written there (Permission denied). Give another path, or see to "
        "permissions and space.\n"
    )
