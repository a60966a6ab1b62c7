import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.tasks.coherence.result import repetition
from evals.tasks.coherence.task import SHIPPED_TEXTS
from evals.tasks.coherence.texts import load_texts
from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run
from tests.unit.evals.tiny_models import write_items

TEXTS: list[dict[str, Any]] = [
    {"id": "a", "group": "story", "text": "The cheap chair, the chair made in town. Öl."},
    {"id": "b", "group": "letter", "text": "Which one? The bread baked at home."},
]


def run(msm_eval: Run, model: Path, tmp_path: Path, settings: str, *, name: str) -> Any:
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"evaluations:\n  {name}: {{task: coherence, dtype: fp32, {settings}}}\n")
    return msm_eval("run", suite, model, "--out", tmp_path / "results", "--device", "cpu")


@pytest.mark.parametrize("bos", ["false", "true"])
def test_numbers_are_those_of_a_naive_computation(
    msm_eval: Run, tiny_model: Path, tmp_path: Path, bos: str
) -> None:
    write_items(tmp_path / "texts.jsonl", TEXTS)
    settings = f"items: texts.jsonl, start_tokens: 5, new_tokens: 12, prepend_bos: {bos}"
    ended = run(msm_eval, tiny_model, tmp_path, settings, name="coherent")
    assert (ended.status, ended.err) == (0, "")
    result = load_eval_result(tmp_path / "results" / "coherent.json")
    assert [metric.better for metric in result.metrics] == ["lower", "lower"]
    assert set(result.headline_metric.groups) == {"story", "letter"}
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for row, text in zip(result.rows, TEXTS, strict=True):
        ids = tokenizer(text["text"], add_special_tokens=False)["input_ids"]
        if bos == "true":
            ids = [tokenizer.bos_token_id, *ids]
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        nats = -sum(float(logprobs[n, token]) for n, token in enumerate(ids[1:]))
        expected = nats / math.log(2) / len(text["text"].encode("utf-8"))
        assert row.numbers["bits_per_byte"] == pytest.approx(expected, abs=1e-5)
        own = ids[:5]
        for _ in range(12):
            with torch.no_grad():
                own.append(int(model(torch.tensor([own])).logits[0, -1].argmax()))
            if own[-1] == tokenizer.eos_token_id:
                own.pop()
                break
        assert row.details["continuation"] == tokenizer.decode(own[5:])
        assert row.numbers["repetition"] == repetition(own[5:])


def test_settings_of_the_models_folder_change_nothing(
    msm_eval: Run, tiny_model: Path, tmp_path: Path
) -> None:
    write_items(tmp_path / "texts.jsonl", TEXTS)
    settings = "items: texts.jsonl, start_tokens: 5, new_tokens: 12"
    config = tiny_model / "generation_config.json"
    kept = config.read_text()
    try:
        for name, penalty in (("without", {}), ("with", {"repetition_penalty": 9.0, "top_k": 3})):
            config.write_text(json.dumps(json.loads(kept) | penalty))
            assert run(msm_eval, tiny_model, tmp_path, settings, name=name).status == 0
    finally:
        config.write_text(kept)
    plain, penalised = (
        load_eval_result(tmp_path / "results" / f"{name}.json") for name in ("without", "with")
    )
    assert plain.rows == penalised.rows


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 2, 3], None),
        ([1, 2, 3, 4], 0.0),
        ([1, 1, 1, 1, 1, 1], 1 - 1 / 3),
        ([1, 2, 1, 2, 1, 2, 1], 1 - 2 / 4),
    ],
)
def test_repetition_by_hand(ids: list[int], expected: float | None) -> None:
    assert repetition(ids) == expected


@pytest.mark.parametrize(
    ("texts", "settings", "parts"),
    [
        (TEXTS[:1], "", ["an interval needs at least 2"]),
        (TEXTS, "start_tokens: 40", ["text 'a'", "`start_tokens`"]),
        (TEXTS, "start_tokens: 5, new_tokens: 600", ["text 'a'", "context is 512"]),
        ([TEXTS[0], TEXTS[0]], "", ["line 2", "'a'"]),
        ([{"id": "a", "text": "x"}, TEXTS[1]], "", ["line 1", "`group`"]),
    ],
)
def test_what_is_wrong_is_named(
    msm_eval: Run,
    tiny_model: Path,
    tmp_path: Path,
    texts: list[dict[str, Any]],
    settings: str,
    parts: list[str],
) -> None:
    write_items(tmp_path / "texts.jsonl", texts)
    ended = run(msm_eval, tiny_model, tmp_path, f"items: texts.jsonl, {settings}", name="x")
    assert ended.status == 2
    for part in parts:
        assert part in ended.err


def test_the_shipped_texts_are_whole() -> None:
    texts = load_texts(SHIPPED_TEXTS).items
    assert len(texts) == 12
    assert all(80 <= len(text.text.split()) <= 130 for text in texts)
