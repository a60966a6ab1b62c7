from pathlib import Path

import pytest

from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import FileRecord, file_record
from megatron_msm.formats.manifest import (
    Counts,
    DatasetManifest,
    InputEntry,
    dataset_prefix,
    manifest_path,
    read_manifest,
    write_manifest,
)

COUNTS = Counts(lines=3, kept=2, rejected=1, tokens=10, loss_tokens=4)


def manifest(prefix: Path) -> DatasetManifest:
    (prefix.parent / f"{prefix.name}.bin").write_bytes(b"1234")
    return DatasetManifest(
        kind="docs",
        tokenizer_sha256="ab" * 32,
        vocab_size=100,
        eod_id=2,
        settings={"append_eod": True},
        counts=COUNTS,
        inputs=(InputEntry(path="a.jsonl", bytes=3, sha256="cd" * 32),),
        files={".bin": file_record(prefix.parent / f"{prefix.name}.bin")},
    )


def test_reads_what_was_written(tmp_path: Path) -> None:
    written = manifest(tmp_path / "docs")
    write_manifest(tmp_path / "docs", written)
    read = read_manifest(tmp_path / "docs")
    assert read == written
    assert read.sha256 == written.sha256


def test_identity_is_what_a_model_sees(tmp_path: Path) -> None:
    first = manifest(tmp_path / "docs")
    elsewhere = first.model_copy(update={"inputs": (), "tokenizer_path": "x", "settings": {}})
    assert elsewhere.sha256 == first.sha256
    other = {".bin": FileRecord(bytes=4, sha256="ef" * 32)}
    assert first.model_copy(update={"files": other}).sha256 != first.sha256
    assert first.model_copy(update={"tokenizer_sha256": "0"}).sha256 != first.sha256
    assert first.model_copy(update={"chat_template_sha256": "0"}).sha256 != first.sha256


def test_a_dataset_without_a_manifest_is_none(tmp_path: Path) -> None:
    (tmp_path / "docs.bin").write_bytes(b"")
    (tmp_path / "docs.idx").write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"docs: .*has \.bin, \.idx but no \.manifest"):
        read_manifest(tmp_path / "docs")
    with pytest.raises(DataFormatError, match="this is none"):
        read_manifest(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "docs"}'])
def test_a_broken_manifest_is_refused(tmp_path: Path, content: str) -> None:
    manifest_path(tmp_path / "docs").write_text(content)
    with pytest.raises(DataFormatError, match="not a dataset manifest"):
        read_manifest(tmp_path / "docs")


def test_unknown_fields_are_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "docs", manifest(tmp_path / "docs"))
    path = manifest_path(tmp_path / "docs")
    path.write_text(path.read_text().replace('"kind"', '"kinds": 1, "kind"'))
    with pytest.raises(DataFormatError, match="kinds"):
        read_manifest(tmp_path / "docs")


def test_a_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "docs", manifest(tmp_path / "docs"))
    (tmp_path / "docs.bin").write_bytes(b"12345")
    with pytest.raises(DataFormatError, match=r"docs\.bin: 5 bytes where the manifest says 4"):
        read_manifest(tmp_path / "docs")
    (tmp_path / "docs.bin").unlink()
    with pytest.raises(DataFormatError, match=r"docs\.bin: missing"):
        read_manifest(tmp_path / "docs")


@pytest.mark.parametrize(
    "text", ["d/x", "d/x.bin", "d/x.idx", "d/x.manifest.json", "d/x.mask.bin", "d/x.meta.parquet"]
)
def test_dataset_prefix(text: str) -> None:
    assert dataset_prefix(text) == Path("d/x")


def test_dataset_prefix_keeps_other_dots() -> None:
    assert dataset_prefix(Path("d/x.v1.jsonl")) == Path("d/x.v1.jsonl")
