"""A small run on disk: a tiny model, documents and chats, and a RUN.yaml over them."""

import os
import subprocess
import sys
from pathlib import Path

from megatron_msm.convert.importing import import_hf
from tests.tiny import tiny_chats, tiny_documents, write_jsonl, write_tiny_llama

RUN_YAML = """\
out: train
model:
  checkpoint: base
runtime:
  device: cpu
  dtype: fp32
  threads_per_rank: 1
parallel:
  data: 2
phases:
  - name: midtrain
    data:
      prefixes: [data/docs]
    seq_length: 64
    global_batch_size: 4
    duration:
      epochs: 1.5
    optimizer:
      lr: 1e-3
    checkpoint:
      save_interval_steps: 5
  - name: sft
    data:
      prefixes: [data/chats]
    seq_length: 64
    global_batch_size: 4
    duration:
      steps: 6
    optimizer:
      lr: 1e-3
    checkpoint:
      save_interval_steps: 4
"""


def msm(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one `msm` command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "megatron_msm.cli", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def prepare_run(folder: Path, *, num_documents: int = 40) -> Path:
    """Make everything that `msm train run.yaml` needs inside `folder`."""
    hf_folder = write_tiny_llama(folder / "hf")
    import_hf(hf_folder, folder / "base")
    write_jsonl(folder / "docs.jsonl", tiny_documents(num_documents))
    write_jsonl(folder / "chats.jsonl", tiny_chats(30))
    for kind, options in (("docs", ()), ("chats", ("--max-length", "65"))):
        done = msm(
            "prep",
            kind,
            f"{kind}.jsonl",
            "--tokenizer",
            "hf",
            "--out",
            f"data/{kind}",
            *options,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
    (folder / "run.yaml").write_text(RUN_YAML)
    return folder
