"""The loss before training, against transformers' own loss of the same model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_prep.cli import app
from data_prep.health.base_model import BaseModel
from data_prep.health.initial_loss import TextLoss, loss_contrast, loss_section, text_losses
from megatron_msm.errors import CheckpointError
from megatron_msm.progress import SILENT
from tests.tiny import write_tiny_llama
from tests.unit.data_prep.health.corpora import corpus

TEXTS = ["The cat sat on the mat.", "A bird sang, and sang again, in the tree.", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_llama(folder, initializer_range=0.2)
    return folder


def by_transformers(folder: Path, text: str) -> tuple[float, int]:
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    loss = model(input_ids=ids, labels=ids).loss.item() if ids.shape[1] > 1 else 0.0
    return loss, int(ids.shape[1]) - 1


def test_the_loss_of_a_text_is_transformers_own(folder: Path) -> None:
    model = BaseModel(folder)
    for text in TEXTS:
        mean, tokens = by_transformers(folder, text)
        found = model.loss(text)
        assert found.tokens == tokens
        assert found.nats == pytest.approx(mean * tokens, rel=1e-5)
    assert model.loss("word " * 3000).tokens == 1023


def test_a_token_counts_20_nats_at_most(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path, initializer_range=1.0)
    found = BaseModel(tmp_path).loss(TEXTS[1])
    mean, tokens = by_transformers(tmp_path, TEXTS[1])
    assert found.nats <= 20 * tokens
    assert found.nats < 0.98 * mean * tokens


def test_figures_are_means_over_tokens_and_medians_over_documents(folder: Path) -> None:
    model = BaseModel(folder)
    made = corpus(TEXTS)
    losses = text_losses(made, model, most=9, progress=SILENT)
    each = [by_transformers(folder, text) for text in TEXTS]
    each = [(mean, tokens) for mean, tokens in each if tokens]
    figures = {figure.name: figure.value for figure in loss_section(losses, model).figures}
    total = sum(mean * tokens for mean, tokens in each)
    assert figures["initial_loss"] == pytest.approx(total / sum(n for _, n in each), rel=1e-5)
    ordered = sorted(math.exp(mean) for mean, _ in each)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert figures["perplexity_median"] == pytest.approx(median, rel=1e-4)


def test_arms_are_compared_by_the_harder_one() -> None:
    easy, hard = [TextLoss(2 * math.log(4), 2)], [TextLoss(math.log(6), 1)]
    for arms in ((easy, hard), (hard, easy)):
        assert loss_contrast(arms).figures[0].value == pytest.approx(1.5)
    assert loss_contrast(None).figures[0].note == "needs --model"
    assert loss_contrast((easy, [])).figures[0].value is None


def test_the_command_takes_a_model(folder: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs.jsonl"
    docs.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    twin = tmp_path / "twin.jsonl"
    twin.write_bytes(docs.read_bytes())
    line = ["health", docs, "--other", twin, "--model", folder, "--json", "--require",
            "perplexity_ratio<=1.01"]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, line)))
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["contrast"]["figures"]["perplexity_ratio"] == pytest.approx(1.0)
    assert content["corpora"][0]["figures"]["initial_loss"] > 0


def test_a_model_whose_weights_lack_something_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    deeper = config | {"num_hidden_layers": config["num_hidden_layers"] + 1}
    (tmp_path / "config.json").write_text(json.dumps(deeper))
    with pytest.raises(CheckpointError, match="would be random"):
        BaseModel(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot load it"):
        BaseModel(tmp_path)
