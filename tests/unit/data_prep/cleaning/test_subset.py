"""`msm prep subset`: nested, in order, twins together; whatever is broken is named."""

import hashlib
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from data_prep.cleaning.subset import write_subset
from data_prep.cli import app
from megatron_msm.errors import DataFormatError


def corpus(path: Path, text: str, number: int = 40) -> Path:
    rows = [{"id": f"row-{n}", "text": f"{text} {n}"} for n in range(number)]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def taken(source: Path, share: float) -> list[str]:
    out = source.with_name(f"{source.stem}-{share}.jsonl")
    write_subset([source], out, share=share)
    return [orjson.loads(line)["id"] for line in out.read_bytes().splitlines()]


def test_rows_are_those_with_the_smallest_hashes_in_the_files_order(tmp_path: Path) -> None:
    """The ranking is written down again here: SHA-256 of the id."""
    ids = [f"row-{n}" for n in range(40)]
    ranked = sorted(ids, key=lambda own: hashlib.sha256(own.encode()).hexdigest())
    found = taken(corpus(tmp_path / "a.jsonl", "text"), 0.25)
    assert found == [own for own in ids if own in ranked[:10]]


def test_smaller_shares_are_part_of_larger_ones_and_twins_stay_together(tmp_path: Path) -> None:
    one, two = corpus(tmp_path / "a.jsonl", "one"), corpus(tmp_path / "b.jsonl", "two")
    sets = [set(taken(one, share)) for share in (0.01, 0.1, 0.3, 0.5, 1.0)]
    assert [len(each) for each in sets] == [1, 4, 12, 20, 40]
    assert all(small < large for small, large in pairwise(sets))
    assert taken(one, 0.3) == taken(two, 0.3)
    added = corpus(tmp_path / "c.jsonl", "one", 60)
    assert set(taken(added, 0.2)) & {f"row-{n}" for n in range(40)} <= sets[2]


def test_lines_stand_as_they_were_and_those_without_ids_count_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b'{"text":  "one"}', b"", b'{"text": "two",  "x": 1.50}', b'{"text": "two"}']
    path.write_bytes(b"\r\n".join(lines))
    out = tmp_path / "out.jsonl"
    assert write_subset([path], out, share=1.0) == (3, 3)
    assert out.read_bytes() == b"\n".join(line for line in lines if line) + b"\n"


@pytest.mark.parametrize("line", [b"{broken", b"[1]", b""])
def test_what_is_broken_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(DataFormatError, match=r"a\.jsonl"):
        write_subset([path], tmp_path / "out.jsonl", share=0.5)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_says_how_many(tmp_path: Path) -> None:
    path, out = corpus(tmp_path / "a.jsonl", "text"), tmp_path / "deep" / "out.jsonl"
    done = CliRunner().invoke(app, ["subset", str(path), "--share", "0.25", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "10 of 40 rows" in done.output
