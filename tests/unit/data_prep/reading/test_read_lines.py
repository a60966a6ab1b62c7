import gzip
import tempfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_prep.reading.inputs import check_inputs, expand_inputs
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Line
from megatron_msm.errors import DataFormatError


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")), max_size=10),
    ends_with_newline=st.booleans(),
    limit=st.integers(1, 50),
)
def test_every_byte_belongs_to_one_line(
    lines: list[bytes], ends_with_newline: bool, limit: int
) -> None:
    content = b"\n".join(lines) + b"\n" * ends_with_newline
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(content)
        blocks = list(LineReader([path], max_line_bytes=limit).blocks())
    read = [line for block in blocks for line in block.lines()]
    assert sum(block.num_bytes for block in blocks) == len(content)
    assert sum(block.num_lines for block in blocks) == len(read)
    assert [line.number for line in read] == list(range(1, len(read) + 1))
    ends = [*(line.byte_offset for line in read[1:]), len(content)]
    assert not read or read[0].byte_offset == 0
    for line, end in zip(read, ends, strict=False):
        raw = content[line.byte_offset : end]
        assert raw.startswith(line.raw)
        assert line.over_limit is not None or line.raw == raw
        assert (line.over_limit is not None) == (len(raw.removesuffix(b"\n")) > limit)
    assert len(read) == len(content.split(b"\n")) - content.endswith(b"\n") - (not content)


def test_files_are_hashed_while_they_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, path in enumerate(paths):
        path.write_text(f"{number}\n" * 1000)
    reader = LineReader(paths, max_line_bytes=10)
    assert [line.file for line in reader].count(str(paths[1])) == 1000
    assert reader.entries == reader.hash_inputs()


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.xz"):
        (tmp_path / name).touch()
    cases = {
        "no such file": [tmp_path / "x.jsonl"],
        "a folder, where a file is needed": [tmp_path],
        "given twice": [tmp_path / "a.jsonl", tmp_path / ".." / tmp_path.name / "a.jsonl"],
        "xz files are not read": [tmp_path / "a.jsonl.xz"],
    }
    for message, paths in cases.items():
        with pytest.raises(DataFormatError, match=message):
            check_inputs(paths)


def as_read(path: Path, *, max_line_bytes: int) -> list[tuple[int, bytes, int | None]]:
    """Return what matters of each line, whatever file it came from."""
    lines: list[Line] = list(LineReader([path], max_line_bytes=max_line_bytes))
    return [(line.number, line.raw, line.over_limit) for line in lines]


@given(
    lines=st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")), max_size=30),
    limit=st.integers(1, 80),
)
def test_compressed_files_give_the_lines_of_the_plain_one(lines: list[bytes], limit: int) -> None:
    content = b"".join(line + b"\n" for line in lines)
    half = len(content) // 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.jsonl").write_bytes(content)
        # Two members and two frames, as tools that append leave them.
        parts = (content[:half], content[half:])
        (folder / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))
        (folder / "a.jsonl.zst").write_bytes(b"".join(map(zstandard.compress, parts)))
        plain = as_read(folder / "a.jsonl", max_line_bytes=limit)
        for suffix in (".gz", ".zst"):
            path = folder / f"a.jsonl{suffix}"
            assert as_read(path, max_line_bytes=limit) == plain
            reader = LineReader([path])
            list(reader)
            assert reader.entries == reader.hash_inputs()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_torn_compressed_file_is_an_error_not_a_short_one(tmp_path: Path, suffix: str) -> None:
    content = b"".join(b'{"text": "line %d"}\n' % number for number in range(5000))
    packed = gzip.compress(content) if suffix == ".gz" else zstandard.compress(content)
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataFormatError, match="cannot be decompressed"):
        list(LineReader([path]))


def test_rows_of_tables_come_out_as_json_lines(tmp_path: Path) -> None:
    rows = [{"text": f"document {number} \u00e9", "id": number} for number in range(1300)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet")
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        read = list(LineReader([tmp_path / name]))
        assert [orjson.loads(line.raw) for line in read] == rows
        assert [line.number for line in read] == list(range(1, len(rows) + 1))


def test_row_that_json_cannot_hold_is_named(tmp_path: Path) -> None:
    table = pa.table({"text": [b"fine", b"\xff"]})
    pq.write_table(table, tmp_path / "a.parquet")
    read = list(LineReader([tmp_path / "a.parquet"]))
    assert len(read) == 2
    assert all(line.unreadable for line in read)


def test_patterns_and_folders_stand_for_their_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    assert expand_inputs([tmp_path / "*.jsonl"]) == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert len(expand_inputs([tmp_path / "**" / "*.jsonl"])) == 3
    with pytest.raises(DataFormatError, match="no file matches"):
        expand_inputs([tmp_path / "*.parquet"])
    with pytest.raises(DataFormatError, match=r"not one that `datasets` saved"):
        expand_inputs([tmp_path])


def test_saved_datasets_folder_stands_for_the_files_it_names(tmp_path: Path) -> None:
    table = pa.table({"text": ["one", "two"]})
    with (
        pa.OSFile(str(tmp_path / "data-00000.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000.arrow"}]}
    (tmp_path / "state.json").write_bytes(orjson.dumps(state))
    paths = expand_inputs([tmp_path])
    assert [orjson.loads(line.raw)["text"] for line in LineReader(paths)] == ["one", "two"]
