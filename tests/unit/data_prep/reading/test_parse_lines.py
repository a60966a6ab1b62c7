from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.reading.parse_lines import parse_chats, parse_documents
from data_prep.reading.records import Blank, Chat, Document, Item, Line
from megatron_msm.formats.rejects import Reject


def document(raw: bytes, *, offset: int = 0, over_limit: int | None = None) -> Item:
    (item,) = parse_documents([Line("a.jsonl", 1, offset, raw, over_limit)])
    return item


def chat(value: Any) -> Item:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    (item,) = parse_chats([Line("a.jsonl", 1, 0, raw + b"\n")])
    return item


def reason(item: Item) -> str:
    assert isinstance(item, Reject), item
    return item.reason


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"text": "\xff"}\n', "invalid UTF-8 at byte 10"),
        (b'{"text": "\xed\xa0\x80"}\n', "invalid UTF-8"),
        (b'{"text": "a"\n', "invalid JSON at character"),
        (b'{"text": "a"} {"text": "b"}\n', "invalid JSON"),
        (b'{"text": NaN}\n', "invalid JSON"),
        (b'{"text": "a', "truncated last line"),
        (b'{"text": "a\x00b"}\n', "NUL byte at byte 11"),
        (b'{"text": "a\\u0000b"}\n', "NUL character at character 1"),
        (b'{"text": "\\ud800"}\n', "lone surrogate"),
        (b'["text"]\n', "not a JSON object but a list"),
        (b'"text"\n', "not a JSON object but a text"),
        (b"null\n", "not a JSON object but null"),
        (b'{"content": "a", "id": 1}\n', r"no field 'text' (fields here: content, id)"),
        (b"{}\n", "no field 'text' (fields here: none)"),
        (b'{"text": null}\n', "field 'text' is null or missing"),
        (b'{"text": 3}\n', "field 'text' is a number"),
        (b'{"text": true}\n', "field 'text' is true or false"),
        (b'{"text": ["a"]}\n', "field 'text' is a list"),
        (b'{"text": ""}\n', "field 'text' is empty"),
        (b'{"text": " \\n\\t\\u00a0"}\n', "only white space"),
        (b'{"text": "a", "text": "b"}\n', "key 'text' is given twice"),
        (b'{"t\\u0065xt": "a", "text": "b", "text": "c"}\n', "key 'text' is given twice"),
        (b'{"text": "a", "domain": 3}\n', "field 'domain' is a number"),
        (b'{"text": "a", "id": true}\n', "field 'id' is true or false"),
        (b'{"text": "a", "clause_ids": "c1"}\n', "field 'clause_ids' is a text"),
        (b'{"text": "a", "role": "x", "role": "y"}\n', "key 'role' is given twice"),
        (b'{"text":' * 2000 + b"\n", "invalid JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_rejected_documents(raw: bytes, expected: str) -> None:
    assert expected in reason(document(raw))


def test_a_line_over_the_limit_is_rejected() -> None:
    item = document(b'{"text": "a', over_limit=9)
    assert reason(item) == "longer than the limit of 9 bytes a line"


@pytest.mark.parametrize("raw", [b"\n", b" \t\r\n", b"\xef\xbb\xbf\n", b"   "])
def test_blank_lines(raw: bytes) -> None:
    assert isinstance(document(raw), Blank)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"text": "a"}',
        b'{"text": "a"}\r\n',
        b'\xef\xbb\xbf{"text": "a"}\n',
        b'  {"t\\u0065xt": "a"}\n',
        b'{"text": "a", "note": "the \\"text\\" field", "n": {"text": "x"}, "big": '
        + b"9" * 300
        + b"}\n",
    ],
)
def test_accepted_documents(raw: bytes) -> None:
    item = document(raw)
    assert isinstance(item, Document), item
    assert item.text == "a"


def test_a_byte_order_mark_elsewhere_is_invalid() -> None:
    assert "invalid JSON" in reason(document(b'\xef\xbb\xbf{"text": "a"}\n', offset=5))


def test_fields_are_carried() -> None:
    line = b'{"text": "a", "id": 7, "clause_ids": ["c"], "idea": null, "role": "dev", "x": 1}\n'
    item = document(line)
    assert isinstance(item, Document)
    carried = item.carried
    assert (carried.id, carried.clause_ids, carried.idea, carried.role) == ("7", ["c"], None, "dev")


USER = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": "a"}, "no field 'messages' (fields here: text)"),
        ({"messages": "a"}, "field 'messages' is a text"),
        ({"messages": []}, "field 'messages' is empty"),
        ({"messages": ["a"]}, "messages[0] is a text"),
        ({"messages": [{"role": "User", "content": "a"}]}, "messages[0].role is 'User'; one of"),
        ({"messages": [{"content": "a"}]}, "messages[0].role is null or missing"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is null or missing"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages[1].content is em"),
        ({"messages": [USER, {"role": "assistant", "content": ["b"]}]}, "content is a list"),
        ({"messages": [USER, {**ANSWER, "loss": 1}]}, "messages[1].loss is a number"),
        ({"messages": [{**USER, "loss": True}, ANSWER]}, "only the assistant's turns"),
        ({"messages": [USER, ANSWER], "tools": {"a": 1}}, "field 'tools' is an object"),
        ({"messages": [USER, {**ANSWER, "x": ["\0"]}]}, "NUL character in a text"),
        (b'{"messages": [{"role": "user", "role": "user", "content": "a"}]}', "'role' is given tw"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_rejected_chats(value: Any, expected: str) -> None:
    assert expected in reason(chat(value))


def test_accepted_chats() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    item = chat({"messages": [USER, call, {**ANSWER, "loss": False}, ANSWER], "tools": []})
    assert isinstance(item, Chat)
    assert item.trained == [False, True, False, True]
    assert item.messages[1] == call, "a template may test whether content is null"
    assert item.messages[2] == ANSWER
    assert item.tools is None


@given(st.binary(max_size=60))
def test_any_bytes_become_one_item(raw: bytes) -> None:
    line = Line("a", 1, 1, raw)
    assert len(list(parse_documents([line]))) == 1
    assert len(list(parse_chats([line]))) == 1
