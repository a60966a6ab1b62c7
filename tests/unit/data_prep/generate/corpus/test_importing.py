from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.generate.corpus.importing import import_rows
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.files import sha256_of_file


def _rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_published_documents_get_ids_and_say_where_from(tmp_path: Path) -> None:
    """Text and domain alone, as the published corpora are; two rows of one text stay two rows."""
    source, out = tmp_path / "published.parquet", tmp_path / "docs.jsonl"
    texts = [("one", "A"), ("two", "B"), ("one", "A")]
    pq.write_table(pa.Table.from_pylist([{"text": t, "domain": d} for t, d in texts]), source)
    made = import_rows([source], out, kind="documents", spec_id="philosophy", max_rejects=0)
    rows = _rows(out)
    assert [(row["text"], row["domain"], row["spec_id"]) for row in rows] == [
        (text, domain, "philosophy") for text, domain in texts
    ]
    assert len({row["id"] for row in rows}) == 3
    assert (made.rows, made.twice) == (3, 1)
    assert sha256_of_file(source) in (tmp_path / "docs.jsonl.md").read_text()


def test_what_a_row_says_is_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    row = {"id": "x", "text": "t", "spec_id": "own", "clause_ids": ["P1"], "role": "dev"}
    source.write_bytes(orjson.dumps(row) + b"\n\n")
    made = import_rows([source], out, kind="documents", spec_id="other", max_rejects=0)
    assert _rows(out) == [row]
    assert made.blank == 1


def test_chats_of_other_forms_become_messages(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    chats: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "b"}]},
        {
            "messages": [
                {"role": "user", "content": "u"},
                {"role": "assistant", "content": "x", "loss": False},
                {"role": "user", "content": "v"},
                {"role": "assistant", "content": "y"},
            ]
        },
    ]
    source.write_bytes(b"".join(orjson.dumps(chat) + b"\n" for chat in chats))
    import_rows([source], out, kind="chats", spec_id=None, max_rejects=0)
    first, second, third = _rows(out)
    assert first["messages"] == chats[0]["messages"]
    assert second["messages"][1] == {"role": "assistant", "content": "b"}
    assert [message.get("loss") for message in third["messages"]] == [None, False, None, True]


def test_a_bad_row_is_named_and_counted(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "fine"}\n{"txt": "no"}\n')
    with pytest.raises(DataFormatError, match=r"in\.jsonl:2: .* 1 rows are unusable"):
        import_rows([source], out, kind="documents", spec_id=None, max_rejects=0)
    assert not out.exists()
    made = import_rows([source], out, kind="documents", spec_id=None, max_rejects=1)
    assert (made.rows, len(made.rejects)) == (1, 1)
