"""The tokenizer of a model: a row for each of its tokens, and two readings that are named."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from tokenizers import Tokenizer, normalizers
from typer.testing import CliRunner

from data_prep.cli import app as prep
from megatron_msm.convert.cli import app
from megatron_msm.convert.importing import import_hf
from megatron_msm.convert.tokenizer_readings import difference_of_tokenizers
from megatron_msm.errors import CheckpointError
from megatron_msm.formats.checkpoint_folder import read_checkpoint_state, resolve_checkpoint
from tests import tiny
from tests.unit.convert.hf_folders import Sizes, write_hf_folder, write_tokenizer

TOO_MANY = r"has ids up to 64, and the model's embedding 61 rows \(vocab_size in config.json\)"


@pytest.mark.parametrize("command", ["import", "docs", "chats"])
def test_a_token_without_a_row_is_refused(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "hf"
    write_hf_folder(folder)
    write_tokenizer(folder, Sizes().vocab + 3)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["[PAD]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    if command == "import":
        with pytest.raises(CheckpointError, match=TOO_MANY + r"; .* a row: '\[PAD\]' \(64\)"):
            import_hf(folder, tmp_path / "megatron")
        return
    tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.tiny_documents(1))
    arguments = [command, str(tmp_path / "rows.jsonl"), "--tokenizer", str(folder)]
    arguments += ["--max-length", "64"] if command == "chats" else []
    result = CliRunner().invoke(prep, [*arguments, "--out", str(tmp_path / "out")])
    with pytest.raises(CheckpointError, match=TOO_MANY):
        raise result.exception or AssertionError("accepted")
    assert not list(tmp_path.glob("out*"))


def write_qwen(folder: Path, *, with_nfc: bool) -> Path:
    """Write a model whose class in transformers 5 normalises; tokenizer.json does, or does not."""
    tiny.write_tiny_model(folder, "qwen2")
    if with_nfc:
        path = folder / "tokenizer.json"
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        content["normalizer"] = {"type": "NFC"}
        path.write_bytes(orjson.dumps(content))
    return folder


def test_the_first_text_that_is_read_in_two_ways_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5")
    remark = difference_of_tokenizers(write_qwen(tmp_path / "plain", with_nfc=False))
    assert remark is not None
    assert " by tokenizer.json, which is what is trained on, and [" in remark
    assert "by Qwen2Tokenizer of transformers 5" in remark
    text = remark.split("'")[1].encode().decode("unicode_escape")
    assert normalizers.NFC().normalize_str(text) != text or len(text) > 1
    folder = tiny.write_tiny_model(tmp_path / "llama", "llama")
    assert difference_of_tokenizers(folder) is None


def test_import_records_and_verify_says_which_reading_was_trained(tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5")
    folder, out = write_qwen(tmp_path / "hf", with_nfc=False), tmp_path / "megatron"
    assert CliRunner().invoke(app, ["import", str(folder), str(out)]).exit_code == 0
    state = read_checkpoint_state(resolve_checkpoint(out))
    remarks = state.lineage[0].details["remarks"]
    assert isinstance(remarks, list)
    (remark,) = map(str, remarks)
    assert remark.startswith("tokenizer: ")
    result = CliRunner().invoke(app, ["verify", str(folder), str(out)])
    assert remark in result.stdout
    assert result.exit_code == 0


def test_a_tokenizer_that_transformers_does_not_load_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers: Any = pytest.importorskip("transformers")

    def fail(*args: object, **options: object) -> None:
        raise ValueError("no such class")

    folder = tiny.write_tiny_model(tmp_path / "hf", "llama")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    assert "ValueError: no such class" in str(difference_of_tokenizers(folder))


def test_a_tokenizer_that_transformers_cannot_encode_with_is_said(tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5")
    # The class of Gemma's tokenizer wants a token <unk>, which the tests' has not.
    folder = tiny.write_tiny_model(tmp_path / "hf", "gemma3_text")
    assert "cannot be encoded by GemmaTokenizer" in str(difference_of_tokenizers(folder))
