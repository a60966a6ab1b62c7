"""From a line of JSON to a document or a chat, or to the reason why not.

Parsing is strict: what another tool would repair, skip or overwrite in silence (a lone surrogate,
a NUL, a key given twice, a text cut off by a full disk) is a reject here.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeGuard, cast

import orjson

from data_prep.reading.chat_forms import read_conversation
from data_prep.reading.records import (
    Blank,
    Carried,
    Chat,
    Document,
    Item,
    Line,
    RejectLineError,
    kind_of,
)
from megatron_msm.formats.json_types import JsonObject, JsonValue
from megatron_msm.formats.provenance import CARRIED_TEXT_FIELDS
from megatron_msm.formats.rejects import Reject

_BOM = b"\xef\xbb\xbf"
_NOTHING: Mapping[str, str | None] = MappingProxyType({})
_TEXT_OR_NOTHING = frozenset((str, type(None)))
_ID = CARRIED_TEXT_FIELDS.index("id")
"""May be an integer."""
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_documents(
    lines: Iterable[Line], *, carry: Sequence[str] = (), text_field: str = "text"
) -> Iterator[Item]:
    """Yield one item for every line of a corpus of documents: `{"text": ...}`."""
    return _parse(lines, functools.partial(_document, carry=carry, field=text_field))


def parse_chats(
    lines: Iterable[Line], *, carry: Sequence[str] = (), messages_field: str | None = None
) -> Iterator[Item]:
    """Yield one item for every line of a corpus of chats: `{"messages": [...]}`."""
    return _parse(lines, functools.partial(_chat, carry=carry, messages_field=messages_field))


def _parse(
    lines: Iterable[Line], build: Callable[[Line, JsonObject], Document | Chat]
) -> Iterator[Item]:
    for line in lines:
        raw = line.raw.removeprefix(_BOM) if line.byte_offset == 0 else line.raw
        if line.over_limit is None and (not raw or raw.isspace()):
            yield Blank(line)
            continue
        yield _item(line, raw, build)


def _item(
    line: Line, raw: bytes, build: Callable[[Line, JsonObject], Document | Chat]
) -> Document | Chat | Reject:
    try:
        if line.over_limit is not None:
            raise RejectLineError(f"longer than the limit of {line.over_limit} bytes a line")
        return build(line, _json_object(raw))
    except RejectLineError as error:
        return line.reject(str(error))


def _json_object(raw: bytes) -> JsonObject:
    try:
        value: JsonValue = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RejectLineError(_json_reason(raw, error)) from None
    if not isinstance(value, dict):
        raise RejectLineError(f"not a JSON object but {kind_of(value)}")
    return value


def _json_reason(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as undecodable:
        return f"invalid UTF-8 at byte {undecodable.start} of the line ({undecodable.reason})"
    if b"\x00" in raw:
        return f"NUL byte at byte {raw.index(0)} of the line"
    if not raw.endswith(b"\n"):
        return f"truncated last line: invalid JSON and no line end ({error.msg})"
    if "surrogate" in error.msg and _LONE_SURROGATE.search(raw):
        return f"lone surrogate in an escape ({error.msg})"
    return f"invalid JSON at character {error.pos} of the line ({error.msg})"


def _document(line: Line, value: JsonObject, carry: Sequence[str], field: str) -> Document:
    if field not in value:
        keys = ", ".join(list(value)[:8])
        raise RejectLineError(f"no field {field!r} (fields here: {keys or 'none'})")
    text = value[field]
    if not isinstance(text, str):
        raise RejectLineError(f"field {field!r} is {kind_of(text)}, a text is needed")
    if not text:
        raise RejectLineError(f"field {field!r} is empty")
    if text.isspace():
        raise RejectLineError(f"{field!r} is only white space")
    if "\0" in text:
        raise RejectLineError(f"NUL character at character {text.index(chr(0))} of {field!r}")
    carried = _carried(value, carry)
    _refuse_doubtful_keys(line.raw, value, (field, *carry))
    return Document(line, text, text.encode(), carried)


def _refuse_doubtful_keys(raw: bytes, value: JsonObject, carry: Sequence[str]) -> None:
    """Refuse an object that gives a key we use twice; orjson would take the last in silence.

    Counting the quoted key in the bytes is nearly free, and finds every case but a second key that
    is spelled with escapes. Only a suspicious line is parsed again.
    """
    for key, quoted in _quoted_keys(tuple(carry)):
        if key in value and raw.count(quoted) != 1:
            _refuse_duplicate_keys(raw)
            return


@functools.cache
def _quoted_keys(carry: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Return the keys of a document that are used, and how JSON spells them."""
    keys = ("clause_ids", *CARRIED_TEXT_FIELDS, *carry)
    return [(key, b'"%s"' % key.encode()) for key in keys]


def _refuse_duplicate_keys(raw: bytes) -> None:
    def collect(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
        collected = dict(pairs)
        if len(collected) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise RejectLineError(f"key {twice!r} is given twice")
        return collected

    try:
        # Numbers stay text: Python refuses integers of thousands of digits, which orjson takes.
        json.loads(
            raw.removeprefix(_BOM), object_pairs_hook=collect, parse_int=str, parse_float=str
        )
    except RecursionError:
        raise RejectLineError("nested too deeply") from None


def _chat(line: Line, value: JsonObject, carry: Sequence[str], messages_field: str | None) -> Chat:
    _refuse_duplicate_keys(line.raw)
    if b"\\u0000" in line.raw:  # JSON has no other way to write it
        _refuse_nul(value)
    form = read_conversation(value, field=messages_field)
    return Chat(
        line=line,
        messages=form.messages,
        trained=form.trained,
        tools=form.tools,
        carried=_carried(value, carry),
        changes=form.changes,
    )


def _refuse_nul(value: JsonValue) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise RejectLineError("NUL character in a text")
    elif isinstance(value, dict):
        for part in (*value.keys(), *value.values()):
            _refuse_nul(part)
    elif isinstance(value, list):
        for part in value:
            _refuse_nul(part)


def _carried(value: JsonObject, carry: Sequence[str]) -> Carried:
    get = value.get
    texts = [get(name) for name in CARRIED_TEXT_FIELDS]
    if type(texts[_ID]) is int:
        texts[_ID] = str(texts[_ID])
    if not _TEXT_OR_NOTHING.issuperset(map(type, texts)):
        texts = [_carried_text(name, get(name)) for name in CARRIED_TEXT_FIELDS]
    clauses = get("clause_ids")
    if clauses is not None and not _are_texts(clauses):
        raise RejectLineError(
            f"field 'clause_ids' is {kind_of(clauses)}, a list of texts is needed"
        )
    extra = {name: _as_text(get(name)) for name in carry} if carry else _NOTHING
    return Carried(clauses, extra, *cast(list[str | None], texts))


def _are_texts(value: JsonValue) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(member, str) for member in value)


def _as_text(value: JsonValue) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _carried_text(name: str, value: JsonValue) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise RejectLineError(f"field {name!r} is {kind_of(value)}, a text is needed")
