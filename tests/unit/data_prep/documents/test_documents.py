import fcntl
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_prep.reading import read_lines
from megatron_msm.errors import CheckpointError, DataFormatError, MsmError
from megatron_msm.formats.indexed_dataset import IndexedDataset
from megatron_msm.formats.manifest import manifest_path, read_manifest
from megatron_msm.formats.provenance import read_provenance
from megatron_msm.formats.rejects import read_rejects
from megatron_msm.formats.tokenizer_files import load_tokenizer, read_tokenizer_files
from tests.unit.data_prep.prep_cases import (
    dataset_bytes,
    names_in,
    prepare_docs,
    texts,
    write_lines,
)
from tests.unit.data_prep.tiny_tokenizer import write_tokenizer


def test_rows_are_the_encoded_texts_and_the_eod(tmp_path: Path, chatml_folder: Path) -> None:
    lines = texts(1_005)
    source = write_lines(tmp_path / "d.jsonl", lines)
    manifest = prepare_docs([source], chatml_folder, tmp_path / "out" / "docs").manifest
    tokenizer = Tokenizer.from_file(str(chatml_folder / "tokenizer.json"))
    dataset = IndexedDataset(tmp_path / "out" / "docs")
    assert len(dataset) == len(lines)
    for row, line in zip(dataset, lines, strict=True):
        assert row.tolist() == [*tokenizer.encode(line["text"]).ids, 2]
    assert manifest.counts.lines == manifest.counts.kept == len(lines)
    assert manifest.counts.tokens == manifest.counts.loss_tokens == dataset.lengths.sum()
    assert manifest == read_manifest(tmp_path / "out" / "docs")
    rows = list(read_provenance(tmp_path / "out" / "docs.meta.parquet"))
    assert [row.source_line for row in rows] == list(range(1, len(lines) + 1))
    assert [row.tokens for row in rows] == dataset.lengths.tolist()
    assert rows[7].id == "7"
    assert rows[7].characters == len(lines[7]["text"])


def test_without_eod(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    manifest = prepare_docs([source], chatml_folder, tmp_path / "a", append_eod=False).manifest
    assert manifest.eod_id is None
    assert all(row[-1] != 2 for row in IndexedDataset(tmp_path / "a"))


def test_the_eod_token_by_name(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    prepare_docs([source], chatml_folder, tmp_path / "a", eod_token="<|endoftext|>")
    assert all(row[-1] == 0 for row in IndexedDataset(tmp_path / "a"))
    with pytest.raises(CheckpointError, match=r"--eod-token '</s>' is not an added token"):
        prepare_docs([source], chatml_folder, tmp_path / "b", eod_token="</s>")
    nameless = write_tokenizer(tmp_path / "t", config={})
    with pytest.raises(CheckpointError, match="names no eos_token"):
        prepare_docs([source], nameless, tmp_path / "b")


def test_control_tokens_in_text_are_plain_text(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", [{"text": "a<|im_end|><|im_start|>b<|endoftext|>"}])
    prepare_docs([source], chatml_folder, tmp_path / "a", append_eod=False)
    (row,) = IndexedDataset(tmp_path / "a")
    assert not {0, 1, 2} & set(row.tolist())
    plain = load_tokenizer(read_tokenizer_files(chatml_folder), control_tokens_as_text=False)
    assert plain.decode(row.tolist()) == "a<|im_end|><|im_start|>b<|endoftext|>"


def test_a_big_vocabulary_is_stored_as_int32(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t", ordinary=[f"<x{n}>" for n in range(65_300)])
    source = write_lines(tmp_path / "d.jsonl", [{"text": "<x65299>"}])
    prepare_docs([source], folder, tmp_path / "a")
    dataset = IndexedDataset(tmp_path / "a")
    assert dataset.dtype == np.int32
    assert dataset[0][0] > 65_500


def test_too_many_rejects_leave_nothing_but_the_reasons(
    tmp_path: Path, chatml_folder: Path
) -> None:
    lines = [*texts(3), b"{", *texts(2), {"text": ""}]
    source = write_lines(tmp_path / "d.jsonl", lines)
    out = tmp_path / "out" / "docs"
    with pytest.raises(DataFormatError) as caught:
        prepare_docs([source], chatml_folder, out, max_rejects=1)
    message = str(caught.value)
    assert "2 of the 7 lines read cannot become rows, and --max-rejects allows 1" in message
    assert f"{source}:4: invalid JSON" in message
    assert f"{source}:7: field 'text' is empty" in message
    assert "--max-rejects 2" in message
    assert names_in(out.parent) == {"docs.rejects-failed.jsonl"}
    assert [r.line for r in read_rejects(out.parent / "docs.rejects-failed.jsonl")] == [4, 7]
    counts = prepare_docs([source], chatml_folder, out, max_rejects=2).manifest.counts
    assert (counts.lines, counts.kept, counts.rejected) == (7, 5, 2)
    assert "docs.rejects-failed.jsonl" not in names_in(out.parent)


def test_a_failed_run_knows_a_limited_number_of_rejects(
    tmp_path: Path, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_lines, "BLOCK_BYTES", 500)
    source = write_lines(tmp_path / "d.jsonl", [b"{"] * 5000)
    with pytest.raises(DataFormatError, match="1000 of the 1000 lines read"):
        prepare_docs([source], chatml_folder, tmp_path / "a")


def test_nothing_kept_is_no_dataset(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", [b"", b"{"])
    with pytest.raises(DataFormatError, match="none of the 2 input lines became a row"):
        prepare_docs([source], chatml_folder, tmp_path / "out" / "a", max_rejects=9)
    assert names_in(tmp_path / "out") == set()


def test_a_finished_dataset_is_not_made_again(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    out = tmp_path / "a"
    assert not prepare_docs([source], chatml_folder, out).already_made
    before = dataset_bytes(out)
    assert prepare_docs([source], chatml_folder, out).already_made
    with pytest.raises(DataFormatError, match=r"differs .* in eod_id; append_eod \(True there"):
        prepare_docs([source], chatml_folder, out, append_eod=False)
    write_lines(source, texts(4))
    with pytest.raises(DataFormatError, match=r"the content of .*d\.jsonl\. .*--force"):
        prepare_docs([source], chatml_folder, out)
    other = write_lines(tmp_path / "e.jsonl", texts(3))
    with pytest.raises(DataFormatError, match="the list of inputs"):
        prepare_docs([other], chatml_folder, out)
    assert dataset_bytes(out) == before
    assert prepare_docs([source], chatml_folder, out, force=True).manifest.counts.kept == 4


def test_a_failing_run_with_force_leaves_the_old_dataset(
    tmp_path: Path, chatml_folder: Path
) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    prepare_docs([source], chatml_folder, tmp_path / "a")
    before = dataset_bytes(tmp_path / "a")
    write_lines(source, [b"{"])
    with pytest.raises(DataFormatError):
        prepare_docs([source], chatml_folder, tmp_path / "a", force=True)
    assert dataset_bytes(tmp_path / "a") == before


def test_tokens_of_another_tool_are_not_overwritten(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    (tmp_path / "a.bin").write_bytes(b"precious")
    with pytest.raises(DataFormatError, match=r"a\.bin: exists and has no manifest"):
        prepare_docs([source], chatml_folder, tmp_path / "a")
    assert (tmp_path / "a.bin").read_bytes() == b"precious"
    assert prepare_docs([source], chatml_folder, tmp_path / "a", force=True)


def test_what_a_run_killed_while_publishing_left_is_replaced(
    tmp_path: Path, chatml_folder: Path
) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    prepare_docs([source], chatml_folder, tmp_path / "a")
    whole = dataset_bytes(tmp_path / "a")
    manifest_path(tmp_path / "a").unlink()
    (tmp_path / ".tmp-a.publishing").touch()
    prepare_docs([source], chatml_folder, tmp_path / "a")
    assert dataset_bytes(tmp_path / "a") == whole
    assert not any(name.startswith(".tmp-") for name in names_in(tmp_path))


def test_a_damaged_dataset_names_force(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    prepare_docs([source], chatml_folder, tmp_path / "a")
    (tmp_path / "a.idx").write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"a\.idx: 0 bytes .*--force"):
        prepare_docs([source], chatml_folder, tmp_path / "a")


def test_a_folder_that_cannot_be_made(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    with pytest.raises(MsmError, match=r"could not be written: .*d\.jsonl"):
        prepare_docs([source], chatml_folder, source / "a")


def test_two_processes_cannot_write_one_dataset(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    with (tmp_path / ".tmp-a.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataFormatError, match="another process is writing this dataset"):
            prepare_docs([source], chatml_folder, tmp_path / "a")
    assert prepare_docs([source], chatml_folder, tmp_path / "a")


def test_workers_that_a_killed_run_left_are_waited_for(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(3))
    with (tmp_path / ".tmp-a.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        worker = subprocess.Popen(["sleep", "1"], pass_fds=[lock.fileno()])
    assert prepare_docs([source], chatml_folder, tmp_path / "a")
    assert worker.wait() == 0


def test_bos_before_and_eod_behind_every_document(tmp_path: Path) -> None:
    config = {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}
    folder = write_tokenizer(tmp_path / "t", config=config)
    source = write_lines(tmp_path / "d.jsonl", [{"body": "a"}, {"body": "the cheese"}])
    prepare_docs([source], folder, tmp_path / "a", prepend_bos=True, text_field="body")
    rows = [row.tolist() for row in IndexedDataset(tmp_path / "a")]
    assert [(row[0], row[-1]) for row in rows] == [(1, 0), (1, 0)]
    prepare_docs([source], folder, tmp_path / "b", text_field="body")
    assert [row[1:] for row in rows] == [row.tolist() for row in IndexedDataset(tmp_path / "b")]
    no_bos = write_tokenizer(tmp_path / "u")
    with pytest.raises(CheckpointError, match="names no bos_token"):
        prepare_docs([source], no_bos, tmp_path / "c", prepend_bos=True, text_field="body")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"text": "a"},\n {"text": "b"}]\n', "is one JSON array"),
        ('{"text": "a"}\n'.encode("utf-16"), "is UTF-16"),
    ],
    ids=["array", "utf-16"],
)
def test_a_file_of_another_form_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    source = tmp_path / "d.json"
    source.write_bytes(content)
    with pytest.raises(DataFormatError, match=message):
        prepare_docs([source], write_tokenizer(tmp_path / "t"), tmp_path / "a")
