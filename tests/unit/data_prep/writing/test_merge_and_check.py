from pathlib import Path

import pytest

from data_prep.inspecting.check import check_dataset, require_ok
from data_prep.reading import read_lines
from data_prep.writing.merge import merge_datasets
from megatron_msm.errors import DataFormatError
from megatron_msm.formats import provenance
from megatron_msm.formats.files import file_record
from megatron_msm.formats.indexed_dataset import IndexedDataset, IndexedDatasetWriter, mask_prefix
from megatron_msm.formats.manifest import (
    DatasetManifest,
    manifest_path,
    read_manifest,
    write_manifest,
)
from tests.unit.data_prep.prep_cases import (
    conversations,
    dataset_bytes,
    prepare_docs,
    prepare_talks,
    texts,
    write_lines,
)


def test_merged_docs_equal_one_run_byte_for_byte(
    tmp_path: Path, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_ROWS_PER_GROUP", 4)
    monkeypatch.setattr(read_lines, "BLOCK_BYTES", 150)
    sources = [
        write_lines(tmp_path / "1.jsonl", [*texts(5), b"{", b"", {"text": "\0"}]),
        write_lines(tmp_path / "2.jsonl", [b"  ", *texts(6, start=5)]),
        write_lines(tmp_path / "3.jsonl", [b"[]", *texts(1, start=20)]),
    ]
    for number, source in enumerate(sources):
        prepare_docs([source], chatml_folder, tmp_path / f"part{number}", max_rejects=9)
    prepare_docs(sources, chatml_folder, tmp_path / "whole", max_rejects=9)
    parts = [tmp_path / f"part{number}" for number in range(3)]
    assert not merge_datasets(parts, tmp_path / "merged").already_made
    assert dataset_bytes(tmp_path / "merged") == dataset_bytes(tmp_path / "whole")
    assert len(dataset_bytes(tmp_path / "merged")) == 5
    assert merge_datasets(parts, tmp_path / "merged").already_made
    with pytest.raises(DataFormatError, match=r"another finished dataset .* --force"):
        merge_datasets(parts[:2], tmp_path / "merged")


def test_merged_chats_equal_one_run_byte_for_byte(tmp_path: Path, chatml_folder: Path) -> None:
    sources = [
        write_lines(tmp_path / "1.jsonl", conversations(3)),
        write_lines(tmp_path / "2.jsonl", conversations(4)),
    ]
    for number, source in enumerate(sources):
        prepare_talks([source], chatml_folder, tmp_path / f"part{number}")
    prepare_talks(sources, chatml_folder, tmp_path / "whole")
    merge_datasets([tmp_path / "part0", tmp_path / "part1"], tmp_path / "merged")
    assert dataset_bytes(tmp_path / "merged") == dataset_bytes(tmp_path / "whole")
    assert len(dataset_bytes(tmp_path / "merged")) == 7


def test_datasets_that_do_not_fit_are_not_merged(tmp_path: Path, chatml_folder: Path) -> None:
    one = write_lines(tmp_path / "1.jsonl", texts(2))
    two = write_lines(tmp_path / "2.jsonl", texts(3))
    prepare_docs([one], chatml_folder, tmp_path / "a")
    prepare_docs([two], chatml_folder, tmp_path / "b", append_eod=False)
    with pytest.raises(DataFormatError, match=r"b: cannot be merged with .*a: they differ in eod"):
        merge_datasets([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    with pytest.raises(DataFormatError, match=r"its input .*1\.jsonl is also in"):
        merge_datasets([tmp_path / "a", tmp_path / "a"], tmp_path / "m")
    with pytest.raises(DataFormatError, match="this is none"):
        merge_datasets([tmp_path / "a", tmp_path / "x"], tmp_path / "m")


@pytest.fixture
def chats(tmp_path: Path, chatml_folder: Path) -> Path:
    source = write_lines(tmp_path / "c.jsonl", [*conversations(4), b"{"])
    prepare_talks([source], chatml_folder, tmp_path / "a", max_rejects=1)
    return tmp_path / "a"


def rehash(prefix: Path, **counts: int) -> None:
    """Make the manifest agree with the files again, as a faulty writer would."""
    manifest = read_manifest_unchecked(prefix)
    files = {suffix: file_record(Path(f"{prefix}{suffix}")) for suffix in manifest.files}
    changed = manifest.counts.model_copy(update=counts)
    write_manifest(prefix, manifest.model_copy(update={"files": files, "counts": changed}))


def read_manifest_unchecked(prefix: Path) -> DatasetManifest:
    return DatasetManifest.model_validate_json(manifest_path(prefix).read_bytes())


def failed(prefix: Path) -> list[str]:
    return [finding.name for finding in check_dataset(prefix) if not finding.is_ok]


def test_a_whole_dataset_passes(chats: Path) -> None:
    findings = check_dataset(chats)
    assert len(findings) >= 13
    require_ok(chats, findings)


@pytest.mark.parametrize("suffix", [".bin", ".mask.bin", ".meta.parquet", ".rejects.jsonl"])
def test_one_changed_byte_is_found(chats: Path, suffix: str) -> None:
    path = Path(f"{chats}{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert failed(chats) == [f"sha256 of {suffix}"]
    with pytest.raises(DataFormatError, match=f"sha256 of {suffix}: its content changed"):
        require_ok(chats, check_dataset(chats))


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"lines": 9}, ["lines = blank + kept + rejected"]),
        ({"kept": 5, "lines": 6}, ["kept = rows"]),
        ({"rejected": 0, "lines": 4}, ["rejected = lines of the reject file"]),
        ({"tokens": 1}, ["tokens"]),
        ({"loss_tokens": 1}, ["loss mask"]),
    ],
)
def test_wrong_counts_are_found(chats: Path, counts: dict[str, int], names: list[str]) -> None:
    rehash(chats, **counts)
    assert failed(chats) == names


@pytest.mark.parametrize(
    ("bits", "detail"),
    [([2], "values other than 0 and 1"), ([0], "no loss at all"), ([1], "loss everywhere")],
)
def test_wrong_masks_are_found(chats: Path, bits: list[int], detail: str) -> None:
    lengths = IndexedDataset(chats).lengths.tolist()
    with IndexedDatasetWriter(mask_prefix(chats), "uint8") as writer:
        for length in lengths:
            writer.add_document(bits * length)
        writer.finalize()
    rehash(chats)
    (finding,) = [finding for finding in check_dataset(chats) if not finding.is_ok]
    assert finding.name == "loss mask"
    assert detail in finding.detail


def test_masks_that_are_not_aligned_are_found(chats: Path) -> None:
    with IndexedDatasetWriter(mask_prefix(chats), "uint8") as writer:
        writer.add_document([0, 1])
        writer.finalize()
    rehash(chats)
    assert failed(chats) == ["loss mask"]
    assert read_manifest(chats)
