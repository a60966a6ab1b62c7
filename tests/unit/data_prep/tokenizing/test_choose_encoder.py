"""The fast back end is used only where it gives the tokens of `tokenizers`."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data_prep.tokenizing import choose_encoder, gigatoken_encoder
from data_prep.tokenizing.encode import EncodedBatch, TokenizersEncoder
from data_prep.tokenizing.gigatoken_encoder import GigatokenEncoder
from megatron_msm.formats.indexed_dataset import IndexedDataset
from megatron_msm.formats.manifest import read_manifest
from megatron_msm.formats.tokenizer_files import read_tokenizer_files, read_tokenizer_json
from megatron_msm.formats.tokenizer_probes import encoder_probes
from tests.unit.data_prep.prep_cases import prepare_docs, write_lines
from tests.unit.data_prep.tiny_tokenizer import write_tokenizer

TEXTS = [
    "plain text",
    "bell \x07 and \U00040000 plane",
    "x\x07\x07y",
    "<think>a</think> <|im_end|>",
]


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_encoder, "_latest", {})


def edit(folder: Path, name: str, value: object) -> Path:
    """Set a top-level field of a tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {name: value}))
    return folder


def rows_by_tokenizers(folder: Path) -> list[list[int]]:
    files = read_tokenizer_files(folder)
    encoder = TokenizersEncoder(files, control_tokens_as_text=True)
    return [row.tolist() for row in encoder.encode_batch([t.encode() for t in TEXTS]).rows()]


def rows_of_command(folder: Path, tmp_path: Path, backend: str) -> list[list[int]]:
    source = write_lines(tmp_path / "d.jsonl", [{"text": text} for text in TEXTS])
    said: list[str] = []
    made = prepare_docs([source], folder, tmp_path / "a", on_slow=said.append, append_eod=False)
    assert made.manifest.backend.startswith(f"{backend} "), said
    assert bool(said) == (backend == "tokenizers")
    return [row.tolist() for row in IndexedDataset(tmp_path / "a")]


def test_bytes_that_the_vocabulary_lacks(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t", ordinary=["<think>"])
    content = orjson.loads((folder / "tokenizer.json").read_bytes())
    vocab = content["model"]["vocab"]
    for character in (chr(0x100 + 7), "ñ"):  # the bytes 0x07 and 0xf1
        vocab[f"not {character}"] = vocab.pop(character)
    edit(folder, "model", content["model"])
    assert rows_of_command(folder, tmp_path, "gigatoken") == rows_by_tokenizers(folder)
    assert len(rows_by_tokenizers(folder)[2]) == 2, "such bytes are left out"
    assert read_manifest(tmp_path / "a").counts.lost_bytes == 4, "and counted"


def test_another_kind_of_tokenizer(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(special_tokens=["[UNK]", "<|im_end|>", "<|endoftext|>"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert rows_of_command(folder, tmp_path, "tokenizers") == rows_by_tokenizers(folder)


def test_a_normalizer_is_honoured_or_the_slow_one_is_used(tmp_path: Path) -> None:
    folder = edit(write_tokenizer(tmp_path / "t"), "normalizer", {"type": "Lowercase"})
    chosen = choose_encoder.choose_encoder(
        read_tokenizer_files(folder),
        read_tokenizer_json(folder),
        [b"ABC"],
        control_tokens_as_text=True,
    )
    wanted = TokenizersEncoder(read_tokenizer_files(folder), control_tokens_as_text=True)
    for text in (b"ABC Abc", "ÀÉ İ ẞ".encode()):
        found = chosen.encoder.encode_batch([text]).tokens.tolist()
        assert found == wanted.encode_batch([text]).tokens.tolist()


def test_a_difference_far_into_the_input_decides(
    tmp_path: Path, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = GigatokenEncoder.encode_batch

    def wrong(self: GigatokenEncoder, batch: Sequence[bytes]) -> EncodedBatch:
        found = encode(self, batch)
        ends = np.cumsum(found.lengths) - 1
        found.tokens[[end for end, text in zip(ends, batch, strict=True) if b"ZZ" in text]] += 1
        return found

    monkeypatch.setattr(GigatokenEncoder, "encode_batch", wrong)
    lines = [{"text": f"document {n} {'is about cheese ' * 50}"} for n in range(700)]
    lines[400:] = [{"text": f"ZZ {line['text']}"} for line in lines[400:]]
    source = write_lines(tmp_path / "d.jsonl", lines)
    said: list[str] = []
    prepare_docs([source], chatml_folder, tmp_path / "b", on_slow=said.append, workers=1)
    assert said
    assert said[0].startswith("gigatoken encodes 'ZZ document ")


class Panic(BaseException):
    """Like pyo3's PanicException."""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_panic_far_into_the_input_costs_only_time(
    workers: int, tmp_path: Path, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = GigatokenEncoder.encode_batch

    def panicking(self: GigatokenEncoder, batch: Sequence[bytes]) -> EncodedBatch:
        if any(b"ZZ" in text for text in batch):
            raise Panic("index out of bounds")
        return encode(self, batch)

    lines = [{"text": f"document {n} {'is about cheese ' * 500}"} for n in range(1_200)]
    source = write_lines(tmp_path / "d.jsonl", lines)
    prepare_docs([source], chatml_folder, tmp_path / "a", workers=1)
    lines[-1] = {"text": "ZZ" + lines[-1]["text"]}
    changed = write_lines(tmp_path / "changed.jsonl", lines)
    monkeypatch.setattr("data_prep.documents.command.sample_texts", lambda *_, **__: [b"a sample"])
    monkeypatch.setattr(GigatokenEncoder, "encode_batch", panicking)
    made = prepare_docs([changed], chatml_folder, tmp_path / "b", workers=workers)
    assert made.manifest.backend.startswith("gigatoken ")
    assert 0 < made.manifest.counts.rescued < 1_200, "the rows of one block"
    wanted = TokenizersEncoder(read_tokenizer_files(chatml_folder), control_tokens_as_text=True)
    (last,) = wanted.encode_batch([lines[-1]["text"].encode()]).rows()
    ours, before = IndexedDataset(tmp_path / "b"), IndexedDataset(tmp_path / "a")
    assert ours[1_199][:-1].tolist() == last.tolist()
    assert all(np.array_equal(ours[row], before[row]) for row in range(1_199))


def test_memory_of_new_words_is_bounded(
    chatml_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = read_tokenizer_files(chatml_folder)
    exact = TokenizersEncoder(files, control_tokens_as_text=True)
    monkeypatch.setattr(gigatoken_encoder, "_MOST_GROWTH_BYTES", 20 << 20)
    content = read_tokenizer_json(chatml_folder)
    encoder = GigatokenEncoder(files, content, exact, control_tokens_as_text=True)
    generator = random.Random(0)
    table = {byte: "etaoinshrd"[byte % 10] for byte in range(256)}
    before, grown = gigatoken_encoder._resident_bytes(), []
    for _ in range(12):
        letters = generator.randbytes(1_000_000).decode("latin-1").translate(table)
        text = " ".join(letters[at : at + 9] for at in range(0, len(letters), 9)).encode()
        assert encoder.encode_batch([text]).lengths[0] > 100_000
        grown.append(gigatoken_encoder._resident_bytes() - before)
    assert max(grown[6:]) < 100 << 20, grown


def test_the_awkward_texts_are_what_they_say() -> None:
    made = encoder_probes(["<|im_end|>"])
    whole = b"".join(made).decode()
    blocks = {ord(char) // 0x80 for char in whole if ord(char) < 0x20000}
    surrogates = set(range(0xD800 // 0x80, 0xE000 // 0x80))
    assert set(range(0x20000 // 0x80)) - surrogates <= blocks
    assert {chr(code) for code in (*range(1, 0x20), *range(0x7F, 0xA0))} <= set(whole)
    assert max(len(max(text.split(), key=len, default=b"")) for text in made) >= 100_000
    assert "<|im_end|>" in whole
    assert "\0" not in whole
    assert sum(map(len, made)) < 1_000_000
