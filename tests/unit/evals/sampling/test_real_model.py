"""The real small model, as the judged one and as its own judge: plumbing, not a measurement."""

from pathlib import Path

import pytest

from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run

SUITE = """\
evaluations:
  am:
    {task: agentic_misalignment, assistant: SmolLM, judge: judge.yaml, samples: 1, max_tokens: 16,
     scenarios: [exfiltration], goals: [safety]}
  why: {task: reasons, of: am, judge: judge.yaml}
"""


@pytest.mark.slow
def test_smollm2_replies_and_judges(msm_eval: Run, smollm2_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    judge = f"path: {smollm2_folder}\nmax_tokens: 16\nattempts: 1\n"
    (tmp_path / "judge.yaml").write_text(judge)
    ended = msm_eval("run", tmp_path / "suite.yaml", smollm2_folder, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    (row,) = load_eval_result(tmp_path / "out" / "am.json").rows
    assert row.details["reply"].strip()
    assert row.details["judge"].strip()
    assert row.numbers["verdict_unreadable"] is not None
    result = load_eval_result(tmp_path / "out" / "why.json")
    assert (
        result.model.weights_sha256
        == load_eval_result(tmp_path / "out" / "am.json").model.weights_sha256
    )
