"""Whatever the lines look like, each is a row, a reject or blank, and the files say so."""

import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.inspecting.check import check_dataset
from data_prep.reading.parse_lines import parse_chats, parse_documents
from data_prep.reading.read_lines import LineReader
from data_prep.reading.records import Blank
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.provenance import read_provenance
from megatron_msm.formats.rejects import Reject, read_rejects
from tests.unit.data_prep.prep_cases import conversations, prepare_docs, prepare_talks, texts

GOOD_DOCS = [orjson.dumps(line) for line in texts(3)]
GOOD_CHATS = [orjson.dumps(line) for line in conversations(3)]


@st.composite
def mutated(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """A good line, or one with bytes deleted, inserted or replaced; never with a line end."""
    raw = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 3))):
        offset = draw(st.integers(0, len(raw)))
        cut = draw(st.integers(0, 4))
        raw = raw[:offset] + draw(st.binary(max_size=3)) + raw[offset + cut :]
    return draw(st.sampled_from([raw, raw, raw, b"", b"  "])).replace(b"\n", b"")


def check_accounting(kind: str, lines: list[bytes], tokenizer: Path, *, has_end: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "in.jsonl", Path(name) / "a"
        source.write_bytes(b"\n".join(lines) + b"\n" * has_end)
        prepare = prepare_docs if kind == "docs" else prepare_talks
        num_lines = source.read_bytes().count(b"\n") + (not source.read_bytes().endswith(b"\n"))
        num_lines -= source.stat().st_size == 0
        try:
            counts = prepare([source], tokenizer, out, max_rejects=100).manifest.counts
        except DataFormatError:  # no line became a row
            lines_of = parse_documents if kind == "docs" else parse_chats
            items = list(lines_of(LineReader([source])))
            assert len(items) == num_lines
            assert all(isinstance(item, Blank | Reject) for item in items)
            return
        assert counts.lines == num_lines == counts.blank + counts.kept + counts.rejected
        rows = [row.source_line for row in read_provenance(Path(f"{out}.meta.parquet"))]
        rejects = list(read_rejects(Path(f"{out}.rejects.jsonl")))
        rejected = [reject.line for reject in rejects]
        assert rows == sorted(rows)
        assert rejected == sorted(rejected)
        assert len({*rows, *rejected}) == len(rows) + len(rejected)
        assert {*rows, *rejected} <= set(range(1, num_lines + 1))
        for reject in rejects:
            assert reject.reason
            content = source.read_bytes()
            assert content[: reject.byte_offset].count(b"\n") == reject.line - 1
        assert all(finding.is_ok for finding in check_dataset(out))


@pytest.mark.parametrize("kind", ["docs", "chats"])
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_every_line_is_accounted_for(kind: str, chatml_folder: Path, data: st.DataObject) -> None:
    good = GOOD_DOCS if kind == "docs" else GOOD_CHATS
    lines = data.draw(st.lists(mutated(good), min_size=1, max_size=12))
    check_accounting(kind, lines, chatml_folder, has_end=data.draw(st.booleans()))
