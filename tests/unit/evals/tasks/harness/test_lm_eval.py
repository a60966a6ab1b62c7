"""lm-evaluation-harness on our folders: its tasks in a suite, and its likelihoods beside ours."""

import json
from pathlib import Path

import pytest
import torch

from evals.models.chat_turn import render_user_turn
from evals.models.continuations import Continuation
from evals.models.hf import open_model
from evals.models.log_probabilities import score_continuations
from evals.tasks.choice.items import load_items
from evals.tasks.choice.prompt import PROMPT_TEMPLATE, build_prompts
from megatron_msm.formats.eval_result import load_eval_result
from tests.integration.training_runs import msm
from tests.unit.evals.conftest import Run

pytest.importorskip("lm_eval", reason="needs pip install 'megatron-msm[harness]'")

ITEMS = Path(__file__).resolve().parents[5] / "examples" / "plain_or_lasting" / "choice.jsonl"
TASK = """\
task: own_facts
dataset_path: json
dataset_kwargs: {data_files: {test: facts.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
FACTS = [
    {"question": "The colour of fresh snow is", "choices": ["white", "black"], "answer": 0},
    {"question": "The capital of France is", "choices": ["Rome", "Paris"], "answer": 1},
    {"question": "The capital of France is", "choices": ["Paris", "Oslo"], "answer": 1},
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_task_file_of_ones_own_runs_on_the_real_model(
    msm_eval: Run, smollm2_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(TASK)
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    suite = "evaluations: {facts: {task: lm_eval, config: own.yaml, dtype: fp32}}"
    (tmp_path / "suite.yaml").write_text(suite)
    ended = msm_eval("run", tmp_path / "suite.yaml", smollm2_folder, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    result = load_eval_result(tmp_path / "out" / "facts.json")
    # The third item's target is wrong on purpose.
    assert [row.numbers["score"] for row in result.rows] == [1, 1, 0]
    assert list(result.headline_metric.groups) == ["own_facts"]
    assert result.headline_metric.better == "higher"
    assert result.protocol.chat_template_sha256 is None
    first = result.protocol.items_sha256

    # Other data under the same settings are other items, and are asked.
    (tmp_path / "facts.jsonl").write_text(json.dumps(FACTS[2]) + "\n")
    assert msm_eval(
        "run", tmp_path / "suite.yaml", smollm2_folder, "--out", tmp_path / "out"
    ).status == 0  # fmt: skip
    result = load_eval_result(tmp_path / "out" / "facts.json")
    assert (result.n, result.headline_metric.overall.estimate) == (1, 0)
    assert result.protocol.items_sha256 != first


@pytest.fixture
def exported(smollm2_folder: Path, tmp_path: Path) -> Path:
    """The real model, through a Megatron checkpoint and out again."""
    for arguments in (
        ("import", str(smollm2_folder), "checkpoint"),
        ("export", "checkpoint", "hf"),
    ):
        ended = msm("convert", *arguments, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
    return tmp_path / "hf"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_reads_an_export_as_it_is_and_its_likelihoods_of_forced_choices_are_ours(
    exported: Path,
) -> None:
    """The harness gets prompt and answer as text, tokenises and scores them by its own code.

    It counts a prompt's last whitespace to the answer, so here the newline after "assistant" is
    moved there too.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    opened = open_model(exported, dtype="fp32", device=torch.device("cpu"), label=None)
    items = load_items(ITEMS, split="dev", target="plain").items[:3]
    labels = {"target": "plain", "other": "lasting"}
    asked = [
        [
            Continuation(one.prompt_ids[:-1], one.prompt_ids[-1:] + one.answer_ids)
            for pair in build_prompts(item, opened.tokenizer, **labels)
            for one in pair
        ]
        for item in items
    ]
    assert {opened.tokenizer.decode(one.answer_ids[0]) for item in asked for one in item} == {"\n"}
    ours = [
        score.sum_logprob
        for scores in score_continuations(opened.model, asked, batch_size=8)
        for score in scores
    ]
    requests = []
    for item in items:
        texts = [item.option(label).text for label in labels.values()]
        for first, second in (texts, texts[::-1]):
            user = PROMPT_TEMPLATE.format(question=item.question, first=first, second=second)
            prompt = render_user_turn(opened.tokenizer, user)
            requests += [Instance("loglikelihood", {}, (prompt, answer), 0) for answer in texts]
    wrapped = HFLM(pretrained=str(exported), device="cpu", dtype="float32", batch_size=4)
    theirs = [total for total, _ in wrapped.loglikelihood(requests)]
    assert len(ours) == len(theirs) == 12
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ("{task: lm_eval}", ["either `name`", "`config`"]),
        ("{task: lm_eval, config: gone.yaml}", ["gone.yaml", "no such file"]),
        ("{task: lm_eval, config: empty.yaml}", ["empty.yaml", "`task: NAME`"]),
        ("{task: lm_eval, config: own.yaml}", ["own.yaml", "cannot load the task", "facts.jsonl"]),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_asked(
    msm_eval: Run, tiny_model: Path, tmp_path: Path, settings: str, parts: list[str]
) -> None:
    (tmp_path / "own.yaml").write_text(TASK)
    (tmp_path / "empty.yaml").write_text("output_type: multiple_choice\n")
    (tmp_path / "suite.yaml").write_text(f"evaluations: {{x: {settings}}}")
    ended = msm_eval("run", tmp_path / "suite.yaml", tiny_model, "--out", tmp_path / "out")
    assert ended.status == 2
    for part in parts:
        assert part in ended.err
