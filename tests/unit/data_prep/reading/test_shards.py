"""Shards hold every line once, and merge to what one run makes, byte for byte."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_prep.cli import app
from data_prep.reading import read_lines
from data_prep.reading.read_lines import LineReader
from data_prep.reading.shards import Shard, parse_shard
from data_prep.writing.merge import merge_datasets, with_shards
from data_prep.writing.prepared import Prepared
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.manifest import manifest_path, read_manifest
from tests.unit.data_prep.prep_cases import (
    conversations,
    dataset_bytes,
    prepare_docs,
    prepare_talks,
    texts,
    write_lines,
)


@settings(deadline=None, max_examples=60)
@given(
    files=st.lists(
        st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")), max_size=8),
        min_size=1,
        max_size=3,
    ),
    count=st.integers(1, 7),
    has_end=st.booleans(),
)
def test_each_line_is_in_one_shard(files: list[list[bytes]], count: int, has_end: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, lines in enumerate(files):
            path = Path(folder) / f"{number}.jsonl"
            path.write_bytes(b"\n".join(lines) + b"\n" * has_end)
            paths.append(path)
        whole = list(LineReader(paths))
        parts = []
        for index in range(count):
            reader = LineReader(paths, shard=Shard(index, count))
            parts += list(reader)
            assert reader.entries == reader.hash_inputs()
    assert parts == whole


def make_shards(sources: list[Path], tokenizer: Path, out: Path, count: int) -> list[Prepared]:
    return [
        prepare_docs(sources, tokenizer, out, shard=Shard(index, count), max_rejects=9)
        for index in range(count)
    ]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return [
        write_lines(tmp_path / "1.jsonl", [*texts(9), b"{", b"", {"text": "\0"}]),
        write_lines(tmp_path / "2.jsonl", [b"  ", *texts(16, start=9), {"text": "x " * 500}]),
        write_lines(tmp_path / "3.jsonl", []),
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_merged_shards_equal_one_run(
    count: int,
    sources: list[Path],
    tmp_path: Path,
    chatml_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_lines, "BLOCK_BYTES", 200)
    prepare_docs(sources, chatml_folder, tmp_path / "whole", max_rejects=9)
    made = make_shards(sources, chatml_folder, tmp_path / "part", count)
    assert sum(shard.manifest.counts.kept for shard in made) == 26
    shards = with_shards([tmp_path / "part"], tmp_path / "merged")
    assert len(shards) == count
    merge_datasets(shards[::-1], tmp_path / "merged")
    assert dataset_bytes(tmp_path / "merged") == dataset_bytes(tmp_path / "whole")
    assert all(
        s.already_made for s in make_shards(sources, chatml_folder, tmp_path / "part", count)
    )


def test_chats_in_shards(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", conversations(20))
    prepare_talks([source], chatml_folder, tmp_path / "whole")
    for index in range(3):
        prepare_talks([source], chatml_folder, tmp_path / "a", shard=Shard(index, 3))
    merge_datasets(with_shards([tmp_path / "a"], tmp_path / "a"), tmp_path / "a")
    assert dataset_bytes(tmp_path / "a") == dataset_bytes(tmp_path / "whole")
    with pytest.raises(DataFormatError, match="has no shards"):
        with_shards([tmp_path / "whole"], tmp_path / "whole")


def test_torn_shards_are_made_again(
    sources: list[Path], tmp_path: Path, chatml_folder: Path
) -> None:
    out = tmp_path / "a"
    before = [dataset_bytes(made.prefix) for made in make_shards(sources, chatml_folder, out, 3)]
    (tmp_path / "a-00000-of-00003.bin").write_bytes(b"torn")
    manifest_path(tmp_path / "a-00001-of-00003").unlink()
    with pytest.raises(DataFormatError, match=r"of the 3 shards these are missing .*: 0, 1\."):
        merge_datasets([tmp_path / "a-00002-of-00003"], out)
    with pytest.raises(DataFormatError, match=r"00000-of-00003\.bin: 4 bytes where"):
        merge_datasets(with_shards([out], out), out)
    again = make_shards(sources, chatml_folder, out, 3)
    assert [made.already_made for made in again] == [False, False, True]
    assert [dataset_bytes(made.prefix) for made in again] == before


def test_shards_that_do_not_belong_together(
    sources: list[Path], tmp_path: Path, chatml_folder: Path
) -> None:
    make_shards(sources, chatml_folder, tmp_path / "a", 3)
    make_shards(sources[:1], chatml_folder, tmp_path / "b", 3)
    a = with_shards([tmp_path / "a"], tmp_path)
    b = with_shards([tmp_path / "b"], tmp_path)
    with pytest.raises(DataFormatError, match="shard of another list of inputs"):
        merge_datasets([*a[:2], b[2]], tmp_path / "m")
    with pytest.raises(DataFormatError, match="a shard is given twice"):
        merge_datasets([*a, a[1]], tmp_path / "m")
    content = sources[1].read_bytes()
    sources[1].write_bytes(content.replace(b"cheese", b"CHEESE"))
    prepare_docs(sources, chatml_folder, tmp_path / "a", shard=Shard(2, 3), force=True)
    with pytest.raises(DataFormatError, match=r"2\.jsonl is not the file that .* changed in betw"):
        merge_datasets(a, tmp_path / "m")


def test_numbers_of_shards() -> None:
    assert parse_shard("3/16") == Shard(3, 16)
    assert parse_shard("16/16") == Shard(0, 16), "an array that counts from 1 has every shard too"
    for wrong in ("3", "17/16", "-1/4", "a/b", "0/0", "1/", "/4"):
        with pytest.raises(ConfigError, match=r"--shard .*: needed is i/n"):
            parse_shard(wrong)
    with pytest.raises(ConfigError, match="standard input cannot be cut"):
        LineReader([Path("-")], shard=Shard(0, 2))


def test_a_killed_shard_is_made_again(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "d.jsonl", texts(60_000))
    out = tmp_path / "out" / "a"
    arguments = ["docs", str(source), "--tokenizer", str(chatml_folder), "--out", str(out)]
    arguments += ["--workers", "2", "--json"]
    command = [sys.executable, "-m", "megatron_msm.cli", "prep", *arguments, "--shard", "1/2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = tmp_path / "out" / ".tmp-a-00001-of-00002.bin"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(out.parent.glob("a-*")), "all that is left has a temporary name"
    for shard in ("0/2", "1/2", "1/2"):
        result = CliRunner().invoke(app, [*arguments, "--shard", shard])
        assert result.exit_code == 0, result.output
    assert orjson.loads(result.stdout)["already_made"] is True
    merged = CliRunner().invoke(app, ["merge", str(out), "--out", str(out)])
    assert merged.exit_code == 0, merged.output
    prepare_docs([source], chatml_folder, tmp_path / "whole")
    assert dataset_bytes(out) == dataset_bytes(tmp_path / "whole")
    assert read_manifest(out).counts.kept == 60_000
