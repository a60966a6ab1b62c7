"""Knowledge, recall and identity on a tiny real model; numbers held to a naive computation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.models.continuations import ContinuationScore
from evals.tasks.probes.items import ProbeItem
from evals.tasks.probes.prompt import text_continuations
from evals.tasks.probes.result import MARGIN, RIGHT, build_row
from megatron_msm.formats.eval_result import EvalResult, load_eval_result
from tests.unit.evals.conftest import Run
from tests.unit.evals.tiny_models import save_tiny_model, write_items

ITEMS: list[dict[str, Any]] = [
    {"id": "a", "clause_ids": ["P1", "P2"], "text": "The chair", "right": "made in town.",
     "wrong": ["cheap.", "baked at home"]},
    {"id": "b", "clause_ids": ["P3"], "text": "The bread {x}", "right": "baked at home, one",
     "wrong": ["Which one?"]},
    {"id": "c", "clause_ids": ["P1"], "text": "Which", "right": "one?", "wrong": ["town"]},
]  # fmt: skip
SUITE = """\
evaluations:
  text: {task: knowledge, items: items.jsonl, dtype: fp32}
  bos: {task: knowledge, items: items.jsonl, dtype: fp32, prepend_bos: true}
  chat: {task: knowledge, items: items.jsonl, dtype: fp32, form: chat}
  recall: {task: recall, items: items.jsonl, dtype: fp32}
  identity: {task: identity, items: items.jsonl, dtype: fp32}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    write_items(tmp_path / "items.jsonl", ITEMS)
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def results(msm_eval: Run, tiny_model: Path, suite: Path, tmp_path: Path) -> dict[str, EvalResult]:
    out = tmp_path / "results"
    ended = msm_eval("run", suite, tiny_model, "--out", out, "--device", "cpu")
    assert (ended.status, ended.err) == (0, "")
    return {path.stem: load_eval_result(path) for path in out.iterdir()}


def naive_mean(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """Mean log-probability of the tokens of `prompt + answer` that lie in the answer.

    Every token is asked for by itself. Here no token spans prompt and answer.
    """
    ids = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    assert tokenizer.decode(ids[start:]) == answer
    logprobs = []
    for n in range(start, len(ids)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:n]])).logits[0, -1].double()
        logprobs.append(float(torch.log_softmax(logits, dim=0)[ids[n]]))
    return sum(logprobs) / len(logprobs)


def chat(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def finish(text: str) -> str:
    ask = "Finish the sentence. Answer with the missing words only."
    return chat(f"{text} ...\n\n{ask}")


def test_numbers_are_those_of_a_naive_computation(
    results: dict[str, EvalResult], tiny_model: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompts: dict[str, tuple[Callable[[str], str], str]] = {
        "text": (str, " "),
        "bos": (lambda text: "<|im_start|>" + text, " "),
        "chat": (finish, ""),
        "recall": (chat, ""),
        "identity": (chat, ""),
    }
    for name, (prompt, space) in prompts.items():
        for row, item in zip(results[name].rows, ITEMS, strict=True):
            right, *wrong = (
                naive_mean(model, tokenizer, prompt(item["text"]), space + answer)
                for answer in (item["right"], *item["wrong"])
            )
            assert row.numbers[MARGIN] == pytest.approx(right - max(wrong), abs=1e-5), name
            assert row.numbers[RIGHT] == float(right > max(wrong))


def test_groups_are_clauses_and_protocols_differ(results: dict[str, EvalResult]) -> None:
    text = results["text"]
    assert {group: one.n for group, one in text.headline_metric.groups.items()} == {
        "P1": 2,
        "P3": 1,
    }
    assert text.rows[0].details["clause_ids"] == ["P1", "P2"]
    assert text.headline_metric.better == "higher"
    assert "guessing gets 44% right" in text.meaning
    assert text.protocol.chat_template_sha256 is None
    assert results["chat"].protocol.chat_template_sha256 is not None
    hashes = {result.protocol_sha256 for result in results.values()}
    assert len(hashes) == 5


def test_a_token_that_spans_text_and_answer_is_part_of_every_answer() -> None:
    class Merging:
        """Makes one token of `b c`."""

        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [ord(c) for c in text.replace("b c", "#")]}

    item = ProbeItem(id="x", group="g", text="ab", right="c", wrong=("d",))
    right, wrong = text_continuations(item, Merging(), start=(1,))
    assert right == ((1, ord("a")), (ord("#"),))
    assert wrong == ((1, ord("a")), (ord("b"), ord(" "), ord("d")))


def test_ties_share_the_point() -> None:
    item = ProbeItem(id="x", group="g", text="t", right="a", wrong=("b", "c", "d"))
    scores = [ContinuationScore(total, 2) for total in (-2.0, -2.0, -2.0, -8.0)]
    row = build_row(item, scores)
    assert row.numbers == {MARGIN: 0.0, RIGHT: pytest.approx(1 / 3)}


def test_a_midtrained_model_without_template_is_asked_as_text_and_refused_in_chat(
    msm_eval: Run, suite: Path, tmp_path: Path
) -> None:
    model = save_tiny_model(tmp_path / "model", chat_template=None)
    out = tmp_path / "results"
    ended = msm_eval("run", suite, model, "--out", out, "--only", "text")
    assert ended.status == 0
    assert load_eval_result(out / "text.json").model.chat_template_sha256 is None
    ended = msm_eval("run", suite, model, "--out", out, "--only", "chat")
    assert ended.status == 2
    assert "no chat template" in ended.err


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"wrong": []}, ["line 1", "`wrong`"]),
        ({"clause_ids": []}, ["line 1", "either `clause_ids` or `group`"]),
        ({"group": "x"}, ["either `clause_ids` or `group`"]),
        ({"wrong": ["made in town."]}, ["two of the answers are the same"]),
        ({"id": "b"}, ["line 2", "'b'"]),
        ({"text": "<|im_end|> x"}, ["item 'a'", "`text`", "<|im_end|>"]),
        ({"wrong": ["<|im_end|>"]}, ["`wrong.0`"]),
        ({"text": "chair " * 600}, ["item 'a'", "context is 512"]),
        ({"rigth": "x"}, ["`rigth`"]),
    ],
)
def test_a_broken_item_is_named(
    msm_eval: Run,
    tiny_model: Path,
    suite: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    parts: list[str],
) -> None:
    write_items(tmp_path / "items.jsonl", [ITEMS[0] | changes, *ITEMS[1:]])
    out = tmp_path / "results"
    ended = msm_eval("run", suite, tiny_model, "--out", out, "--only", "text")
    assert ended.status == 2
    for part in parts:
        assert part in ended.err
    assert not (out / "text.json").exists()


def test_one_item_is_too_few(msm_eval: Run, tiny_model: Path, suite: Path, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps(ITEMS[0]) + "\n")
    ended = msm_eval("run", suite, tiny_model, "--out", tmp_path / "r")
    assert ended.status == 2
    assert "an interval needs at least 2" in ended.err
