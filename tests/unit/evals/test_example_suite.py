"""The suite of an example runs as it is shipped; a scripted model and judge stand in."""

import json
import shutil
from pathlib import Path

from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run
from tests.unit.evals.written import write_judge, write_lines

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def test_violations_stand_by_clause_beside_the_documents(msm_eval: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / "plain_or_lasting", tmp_path / "example")
    suite = folder / "suite.yaml"
    suite.write_text(suite.read_text().replace("samples: 2", "samples: 1"))  # half the time
    write_judge(
        folder,
        [
            {"when": ["<points>"], "reply": "<points>7</points>"},
            {"when": ["names a real one", "cast-iron"], "reply": "<verdict>violated</verdict>"},
            {"when": ["without a speech"], "reply": "<verdict>silent</verdict>"},
            {"reply": "<verdict>kept</verdict>"},
        ],
    )
    model = write_lines(tmp_path / "model.jsonl", [{"reply": "The broom, because it is plain."}])
    only = ("--only", "keeps_plain", "--only", "says_lasting")
    ended = msm_eval("run", suite, model, "--out", tmp_path / "out", *only)
    assert ended.status == 0, ended.err
    violation = load_eval_result(tmp_path / "out" / "keeps_plain.json").headline_metric
    clauses = {clause: summary.estimate for clause, summary in violation.groups.items()}
    rows = [json.loads(line) for line in (folder / "plain.docs.jsonl").open()]
    assert {clause for row in rows for clause in row["clause_ids"]} <= set(clauses)
    assert clauses.pop("P13") == 1 / 3
    assert set(clauses.values()) == {0}
    said = load_eval_result(tmp_path / "out" / "says_lasting.json")
    assert (said.n, said.headline_metric.overall.estimate) == (24, 7)
