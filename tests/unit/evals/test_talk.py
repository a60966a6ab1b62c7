"""A model answers in the terminal and from a file, as transformers' own greedy generation does."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.talk_commands import chat, sample
from megatron_msm.errors import DataFormatError


def test_replies_are_those_of_transformers_and_stand_side_by_side(
    tiny_model: Path, tmp_path: Path
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "replies.jsonl"
    prompts.write_text('{"prompt": "Which cheese?"}\n')
    sample(prompts, [tiny_model], out, max_tokens=6)
    [row] = [json.loads(line) for line in out.read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    text = tokenizer.apply_chat_template(
        row["messages"], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    mask = torch.ones_like(ids)
    made = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=6)
    expected = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert row["replies"][str(tiny_model)]["text"] == expected


def test_a_line_without_a_prompt_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    with pytest.raises(DataFormatError, match=r"p\.jsonl:2: neither `prompt` nor `messages`"):
        sample(tmp_path / "p.jsonl", [tmp_path / "none"], tmp_path / "out.jsonl")


def test_a_chat_goes_on_until_an_empty_line_and_tells_what_was_cut(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter(["Which cheese?", "Why?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    chat(tiny_model, max_tokens=1)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith("next: msm sample")
    assert next(said, "all was read") == "all was read"
    assert shown.err.count("(cut off after 1 tokens") == 2
