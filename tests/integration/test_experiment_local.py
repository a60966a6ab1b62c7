"""`msm experiment --local` from specs to the report, with a tiny model."""

from pathlib import Path

import pytest

from megatron_msm.formats.eval_result import load_eval_result
from tests.integration.test_quickstart import ITEMS
from tests.integration.training_runs import msm
from tests.tiny import tiny_documents, write_jsonl, write_tiny_llama
from tests.unit.evals.written import write_judge

GRID = """\
title: Two arms
out: out
models: {base: hf}
specs: {a: [a.jsonl]}
run: {runtime: {device: cpu, dtype: fp32}}
midtrain:
  {seq_length: 64, global_batch_size: 4, duration: {steps: 3}, optimizer: {lr: 1e-3}}
evaluations:
  choice: {task: choice, items: items.jsonl, target: homemade, dtype: fp32}
  am: {task: agentic_misalignment, assistant: Q, judge: judge.yaml, samples: 1, dtype: fp32,
       max_tokens: 8, scenarios: [leaking], goals: [none]}
  why: {task: reasons, of: am, judge: judge.yaml}
"""


@pytest.mark.slow
def test_whole_experiment_here_then_nothing_left_to_do(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "hf", max_position_embeddings=8192)
    kinds = {"when": ["Kinds of reasons"], "reply": "<present>equanimity</present>"}
    write_judge(tmp_path, [kinds, {"reply": "<verdict>no</verdict>"}])
    write_jsonl(tmp_path / "a.jsonl", tiny_documents(20))
    write_jsonl(tmp_path / "items.jsonl", ITEMS)
    (tmp_path / "grid.yaml").write_text(GRID)

    early = msm("experiment", "report", "grid.yaml", "r.html", cwd=tmp_path)
    assert early.returncode == 2
    assert "msm experiment run" in early.stderr

    done = msm("experiment", "run", "grid.yaml", "--local", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [report] = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("next: ")]
    assert "base+msm(a)" in Path(report).read_text()

    again = msm("experiment", "run", "grid.yaml", "--in-process", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("finished before") == 11

    status = msm("experiment", "status", "grid.yaml", "--stages", cwd=tmp_path, COLUMNS="160")
    assert "11 stages: 11 finished" in status.stdout
    assert "3/3" in status.stdout

    results = [load_eval_result(path) for path in tmp_path.glob("out/stages/*/why.json")]
    assert len({result.model.weights_sha256 for result in results}) == 2
    assert [result.metric("equanimity").overall.estimate for result in results] == [1, 1]

    shown = msm("experiment", "report", "grid.yaml", "r.html", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "compared with base" in shown.stdout
