import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from megatron_msm.errors import CheckpointError
from megatron_msm.formats.tokenizer_files import (
    load_tokenizer,
    read_tokenizer_files,
    read_tokenizer_json,
)
from tests.unit.data_prep.tiny_tokenizer import CHATML, write_tokenizer

V4_TOKEN = {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False, "special": True}


def rewrite(path: Path, change: dict[str, Any]) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | change))


def test_transformers_5_layout(tmp_path: Path) -> None:
    files = read_tokenizer_files(write_tokenizer(tmp_path / "t"))
    assert files.path == tmp_path / "t" / "tokenizer.json"
    assert (files.eos_token, files.eos_id) == ("<|im_end|>", 2)
    assert (files.pad_token, files.pad_id) == ("<|endoftext|>", 0)
    assert (files.bos_token, files.bos_id) == (None, None)
    assert files.chat_template == CHATML
    assert set(files.control_tokens) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert files.vocab_size == len(json.loads(files.path.read_text())["model"]["vocab"])
    assert read_tokenizer_files(files.path) == files


def test_transformers_4_layout(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t", template=None, config={"chat_template": "old"})
    names = {"eos_token": V4_TOKEN, "bos_token": "<|im_start|>"}
    (folder / "special_tokens_map.json").write_text(
        json.dumps(names | {"additional_special_tokens": ["<|endoftext|>", V4_TOKEN]})
    )
    files = read_tokenizer_files(folder)
    assert (files.eos_token, files.bos_token) == ("<|im_end|>", "<|im_start|>")
    assert files.special_tokens["additional_special_tokens"] == ["<|endoftext|>", "<|im_end|>"]
    assert files.chat_template == "old"
    (folder / "chat_template.jinja").write_text("new")
    assert read_tokenizer_files(folder).chat_template == "new"


def test_the_default_of_several_templates_is_used(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t", template=None)
    both = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    rewrite(folder / "tokenizer_config.json", {"chat_template": both})
    assert read_tokenizer_files(folder).chat_template == "d"
    rewrite(folder / "tokenizer_config.json", {"chat_template": both[:1]})
    with pytest.raises(CheckpointError, match="chat_template has rag and no 'default'"):
        read_tokenizer_files(folder)


def test_formatting_does_not_change_the_hash(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t")
    before = read_tokenizer_files(folder).tokenizer_sha256
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7, sort_keys=True))
    assert read_tokenizer_files(folder).tokenizer_sha256 == before
    rewrite(path, {"version": "2.0"})
    assert read_tokenizer_files(folder).tokenizer_sha256 != before


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("tokenizer.json", {"model": None}, r"tokenizer\.json: model\.vocab is 'None'"),
        ("tokenizer.json", {"added_tokens": ["x"]}, r"added_tokens\[0\] is 'x'"),
        ("tokenizer_config.json", {"eos_token": 3}, r"config\.json: eos_token is '3'"),
        ("tokenizer_config.json", {"eos_token": "</s>"}, "'</s>', which tokenizer.json does not"),
        ("tokenizer_config.json", {"chat_template": 3}, "chat_template is '3'"),
    ],
)
def test_broken_files_name_file_and_field(
    tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    folder = write_tokenizer(tmp_path / "t", template=None)
    rewrite(folder / file, change)
    with pytest.raises(CheckpointError, match=message):
        read_tokenizer_files(folder)


def test_missing_and_torn_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file"):
        read_tokenizer_files(tmp_path)
    folder = write_tokenizer(tmp_path / "t")
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        read_tokenizer_files(folder)
    path.write_text('{"model": {"type": "?", "vocab": {"<|im_end|>": 0, "<|endoftext|>": 1}}}')
    with pytest.raises(CheckpointError, match="the tokenizers library cannot read it"):
        load_tokenizer(read_tokenizer_files(folder), control_tokens_as_text=True)


def test_control_tokens_as_text_or_ids(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t", ordinary=["<think>", "<|tool|>"])
    files = read_tokenizer_files(folder)
    assert "<|tool|>" in files.control_tokens, "its shape makes it a control token"
    assert "<think>" not in files.control_tokens
    text = "a<|im_end|>b<|tool|><think>"
    ids = load_tokenizer(files, control_tokens_as_text=False).encode(text).ids
    assert {files.added_tokens[token] for token in ("<|im_end|>", "<|tool|>", "<think>")} <= {*ids}
    plain = load_tokenizer(files, control_tokens_as_text=True)
    assert not set(files.control_tokens.values()) & {*plain.encode(text).ids}
    assert files.added_tokens["<think>"] in plain.encode(text).ids
    assert plain.decode(plain.encode(text).ids, skip_special_tokens=False) == text
    all_plain = load_tokenizer(files, control_tokens_as_text=True, more_control=["<think>"])
    assert not set(files.added_tokens.values()) & {*all_plain.encode(text).ids}


def test_truncation_and_padding_are_off(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t")
    path = folder / "tokenizer.json"
    tokenizer = load_tokenizer(read_tokenizer_files(folder), control_tokens_as_text=False)
    tokenizer.enable_truncation(max_length=2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path))
    tokenizer = load_tokenizer(read_tokenizer_files(folder), control_tokens_as_text=True)
    assert len(tokenizer.encode("some text of many tokens").ids) > 8
    assert len(tokenizer.encode("a").ids) == 1


@pytest.mark.parametrize("has_ordinary", [False, True])
def test_the_faster_loading_changes_nothing(has_ordinary: bool, tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t", ordinary=["<|tool|>"] if has_ordinary else [])
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    content = read_tokenizer_json(folder)
    merges = content["model"]["merges"]
    assert merges
    assert isinstance(merges[0], list)
    files = read_tokenizer_files(folder, content=content)
    assert files == read_tokenizer_files(folder)
    for given in (None, content):
        loaded = load_tokenizer(files, control_tokens_as_text=False, content=given)
        assert loaded.to_str() == plain.to_str()
