"""`msm prep docs` writes the bytes of Megatron-LM's preprocess_data.py, and Megatron reads them.

Where a difference is found, `megatron_golden/make.py` says how the golden files are renewed.
"""

import sys
from pathlib import Path

import orjson
import pytest

from data_prep.inspecting.check import check_dataset
from data_prep.tokenizing import choose_encoder
from megatron_msm.formats.indexed_dataset import IndexedDataset
from tests.unit.data_prep.documents.megatron_golden.make import (
    CASES,
    HERE,
    golden_name,
    write_tokenizer_of_width,
)
from tests.unit.data_prep.prep_cases import prepare_docs


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("golden")
    return {width: write_tokenizer_of_width(folder / width, width) for width in ("uint16", "int32")}


def bytes_at(prefix: Path) -> list[bytes]:
    return [Path(f"{prefix}.{suffix}").read_bytes() for suffix in ("bin", "idx")]


@pytest.mark.parametrize("backend", ["gigatoken", "tokenizers"])
@pytest.mark.parametrize(("inputs", "width", "has_eod"), CASES, ids=lambda value: str(value))
def test_same_bytes_as_megatron_lm(
    inputs: str,
    width: str,
    has_eod: bool,
    backend: str,
    tokenizers: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose_encoder, "_latest", {})
    if backend == "tokenizers":
        monkeypatch.setitem(sys.modules, "gigatoken", None)
    made = prepare_docs(
        [HERE / f"{inputs}.jsonl"],
        tokenizers[width],
        tmp_path / "a",
        append_eod=has_eod,
        special_tokens="ids",
    )
    assert made.manifest.backend.startswith(f"{backend} ")
    assert bytes_at(tmp_path / "a") == bytes_at(HERE / golden_name(inputs, width, has_eod))
    assert all(finding.is_ok for finding in check_dataset(tmp_path / "a"))


@pytest.mark.parametrize("width", ["uint16", "int32"])
def test_by_default_only_texts_that_spell_control_tokens_differ(
    width: str, tokenizers: dict[str, Path], tmp_path: Path
) -> None:
    prepare_docs([HERE / "plain.jsonl"], tokenizers[width], tmp_path / "a")
    assert bytes_at(tmp_path / "a") == bytes_at(HERE / golden_name("plain", width, True))
    source = HERE / "control.jsonl"
    prepare_docs([source], tokenizers[width], tmp_path / "b")
    ours, theirs = (
        [row.tolist() for row in IndexedDataset(prefix)]
        for prefix in (tmp_path / "b", HERE / golden_name("control", width, True))
    )
    spells = ["<|im_end|>" in text or "<|endoftext|>" in text for text in texts_of(source)]
    assert sum(spells) == 2
    assert [mine != yours for mine, yours in zip(ours, theirs, strict=True)] == spells


def texts_of(path: Path) -> list[str]:
    return [orjson.loads(line)["text"] for line in path.read_bytes().splitlines()]


def test_megatron_core_reads_what_we_write(tokenizers: dict[str, Path], tmp_path: Path) -> None:
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    prepare_docs([HERE / "plain.jsonl"], tokenizers["int32"], tmp_path / "a")
    theirs = indexed_dataset.IndexedDataset(str(tmp_path / "a"))
    ours = IndexedDataset(tmp_path / "a")
    assert len(theirs) == len(ours) == len(texts_of(HERE / "plain.jsonl"))
    for row, tokens in enumerate(ours):
        assert theirs[row].tolist() == tokens.tolist()
