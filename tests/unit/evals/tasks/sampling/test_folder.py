"""Replies of a folder in this process, beside transformers' own generation."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from evals.models.chat_turn import render_chat
from evals.models.generation import Prompt, sample_replies
from evals.models.hf import OpenModel, check_chat_template, open_model
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import EXPORT_FILE
from megatron_msm.formats.eval_result import load_eval_result
from megatron_msm.formats.tokenizer_files import read_tokenizer_files
from tests.unit.evals.conftest import Run
from tests.unit.evals.tiny_models import CHAT_TEMPLATE, save_tiny_model
from tests.unit.evals.written import write_judge

TEXTS = ["Which chair?", "The bread baked at home, or the cheap bread?", "One?"]


def _prompts(opened: OpenModel, *, temperature: float, max_tokens: int = 12) -> list[Prompt]:
    return [
        Prompt(_rendered(opened, text), n, temperature, max_tokens) for n, text in enumerate(TEXTS)
    ]


def _rendered(opened: OpenModel, text: str) -> tuple[int, ...]:
    return render_chat(opened.tokenizer, [{"role": "user", "content": text}])


def test_greedy_replies_are_those_of_transformers(tiny_model: Path) -> None:
    opened = open_model(tiny_model, dtype="fp32", device=torch.device("cpu"), label=None)
    replies = sample_replies(opened, _prompts(opened, temperature=0))
    for prompt, reply in zip(_prompts(opened, temperature=0), replies, strict=True):
        ids = torch.tensor([prompt.ids])
        written = opened.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )[0, len(prompt.ids) :]
        ended = opened.tokenizer_files.eos_id in written.tolist()
        text = opened.tokenizer.decode(written[:-1] if ended else written)
        assert (reply.text, reply.num_tokens) == (text, len(written))
        assert reply.finish == ("stop" if ended else "max_tokens")


def test_a_sampled_reply_depends_on_its_seed_and_not_on_its_batch(tiny_model: Path) -> None:
    opened = open_model(tiny_model, dtype="fp32", device=torch.device("cpu"), label=None)
    prompts = _prompts(opened, temperature=1.0)
    together = sample_replies(opened, prompts)
    assert together[::-1] == sample_replies(opened, prompts[::-1])
    assert together == [sample_replies(opened, [prompt])[0] for prompt in prompts]
    reseeded = sample_replies(opened, [prompt._replace(seed=77) for prompt in prompts])
    assert reseeded != together


def test_a_doubled_bos_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", chat_template="{{ bos_token }}" + CHAT_TEMPLATE)
    opened = open_model(folder, dtype="fp32", device=torch.device("cpu"), label=None)
    with pytest.raises(CheckpointError, match="two BOS"):
        _rendered(opened, "x")


def test_a_template_that_was_not_trained_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    files = read_tokenizer_files(folder)
    for trained in (None, files.chat_template_sha256):
        (folder / EXPORT_FILE).write_text(json.dumps({"chat_template_sha256": trained}))
        check_chat_template(folder, files)
    (folder / EXPORT_FILE).write_text(json.dumps({"chat_template_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"not the one .* trained with \(000000000000"):
        check_chat_template(folder, files)


SUITE = """\
evaluations:
  am:
    {task: agentic_misalignment, assistant: Q, judge: judge.yaml, samples: 2, dtype: fp32,
     max_tokens: 6, scenarios: [leaking], goals: [none]}
"""


def test_a_folder_is_asked_and_its_new_weights_are_another_model(
    msm_eval: Run, tmp_path: Path
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    write_judge(tmp_path, [{"reply": "<verdict>no</verdict>"}])
    replies = []
    for seed in (0, 1):
        folder = save_tiny_model(tmp_path / "model", seed=seed, max_length=8192)
        ended = msm_eval("run", tmp_path / "suite.yaml", folder, "--out", tmp_path / "out")
        assert ended.status == 0, ended.err
        result = load_eval_result(tmp_path / "out" / "am.json")
        replies.append([row.details["reply"] for row in result.rows])
    assert len({reply for of_seed in replies for reply in of_seed}) == 4
    assert len(list((tmp_path / "out" / "logs").iterdir())) == 2
    assert result.protocol.chat_template_sha256 == result.model.chat_template_sha256 is not None


def test_a_reply_that_does_not_fit_the_context_stops_with_the_lengths(
    msm_eval: Run, tmp_path: Path
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    write_judge(tmp_path, [{"reply": "<verdict>no</verdict>"}])
    folder = save_tiny_model(tmp_path / "model", max_length=256)
    ended = msm_eval("run", tmp_path / "suite.yaml", folder, "--out", tmp_path / "out")
    assert ended.status == 1
    assert "do not fit the model's context of 256" in ended.err
