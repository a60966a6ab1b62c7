"""The forms in which people write conversations, brought into one form.

What transformers and TRL read alike is read here; every change to a row is named, so that the
manifest can count it. What has two readings, or none, is refused.

    messages | conversations (ShareGPT: from, value) | prompt + completion | a field of any name
"""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeGuard, cast

from data_prep.reading.messages import REASONING_FIELDS, Message
from data_prep.reading.records import RejectLineError, kind_of
from megatron_msm.formats.json_types import JsonObject, JsonValue, as_objects

ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function", "ipython"))
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}


class ConversationForm(NamedTuple):
    """A conversation in the one form that everything behind it reads."""

    messages: list[Message]
    """As a chat template sees them."""
    trained: list[bool]
    """For each message whether it carries loss; True only for the assistant's."""
    tools: list[JsonObject] | None
    changes: tuple[str, ...]
    """What was changed on the way, each once, in a fixed order of the code's."""


def read_conversation(
    row: Mapping[str, JsonValue], *, field: str | None = None
) -> ConversationForm:
    """Read one row of a chat data set.

    Args:
        row: The row.
        field: The field that holds the messages; None: `messages`, `conversations`, or `prompt`
            with `completion`.

    Raises:
        RejectLineError: It is no conversation, or has two readings.
    """
    changes: list[str] = []
    raw = _messages(row, field, changes)
    system = row.get("system")
    if system is not None:
        raw = _with_system(raw, system, changes)
    messages: list[Message] = []
    trained: list[bool] = []
    for index, message in enumerate(raw):
        where = f"messages[{index}]"
        checked = _message(message, where, changes)
        trained.append(_carries_loss(checked, where, changes))
        kept = {key: value for key, value in checked.items() if key not in _LOSS_FIELDS}
        messages.append(cast(Message, kept))  # each of its fields was checked by `_message`
    return ConversationForm(
        messages, trained, _tools(row.get("tools"), changes), tuple(dict.fromkeys(changes))
    )


def _messages(
    row: Mapping[str, JsonValue], field: str | None, changes: list[str]
) -> list[JsonValue]:
    if field is not None:
        return _list(row, field)
    if row.get("messages") is not None:
        return _list(row, "messages")
    if row.get("conversations") is not None:
        raw = _list(row, "conversations")
        if any(isinstance(message, dict) and "from" in message for message in raw):
            changes.append("ShareGPT conversations read as messages")
            return [_from_sharegpt(message, index) for index, message in enumerate(raw)]
        changes.append("field 'conversations' read as messages")
        return raw
    if row.get("prompt") is not None and row.get("completion") is not None:
        changes.append("prompt and completion read as messages")
        return [
            *_side(row["prompt"], "prompt", "user", {"loss": False}),
            *_side(row["completion"], "completion", "assistant", {}),
        ]
    keys = ", ".join(list(row)[:8])
    raise RejectLineError(
        f"no field 'messages' (fields here: {keys or 'none'}); name the one that holds them with "
        "--messages-field"
    )


def _list(row: Mapping[str, JsonValue], field: str) -> list[JsonValue]:
    value = row.get(field)
    if not isinstance(value, list):
        raise RejectLineError(f"field {field!r} is {kind_of(value)}, a list is needed")
    if not value:
        raise RejectLineError(f"field {field!r} is empty")
    return value


def _side(value: JsonValue, field: str, role: str, more: JsonObject) -> list[JsonValue]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value:
        return [{**message, **more} if _is_assistants(message) else message for message in value]
    raise RejectLineError(f"field {field!r} is {kind_of(value)}, a text or messages are needed")


def _is_assistants(message: JsonValue) -> TypeGuard[JsonObject]:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _from_sharegpt(message: JsonValue, index: int) -> JsonObject:
    where = f"conversations[{index}]"
    if not isinstance(message, dict):
        raise RejectLineError(f"{where} is {kind_of(message)}, an object is needed")
    role = _SHAREGPT_ROLES.get(str(message.get("from")))
    if role is None:
        known = ", ".join(_SHAREGPT_ROLES)
        raise RejectLineError(f"{where}.from is {message.get('from')!r}; one of {known}")
    rest = {key: value for key, value in message.items() if key not in ("from", "value")}
    return {"role": role, "content": message.get("value"), **rest}


def _with_system(raw: list[JsonValue], system: JsonValue, changes: list[str]) -> list[JsonValue]:
    if not isinstance(system, str):
        raise RejectLineError(f"field 'system' is {kind_of(system)}, a text is needed")
    if any(isinstance(message, dict) and message.get("role") == "system" for message in raw):
        raise RejectLineError("there is a field 'system' and a system message: keep one of them")
    if not system:
        return raw
    changes.append("field 'system' read as a system message")
    return [{"role": "system", "content": system}, *raw]


def _message(message: JsonValue, where: str, changes: list[str]) -> JsonObject:
    if not isinstance(message, dict):
        raise RejectLineError(f"{where} is {kind_of(message)}, an object is needed")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        found = repr(role) if isinstance(role, str) else kind_of(role)
        raise RejectLineError(f"{where}.role is {found}; one of {', '.join(sorted(ROLES))}")
    kept = {key: value for key, value in message.items() if value is not None or key == "content"}
    calls = kept.get("tool_calls")
    if calls is not None:
        if calls == []:
            del kept["tool_calls"]
        else:
            kept["tool_calls"] = _tool_calls(calls, f"{where}.tool_calls", role, changes)
    if "content" in kept:
        kept["content"] = _content(kept["content"], f"{where}.content", changes)
    _check_content(kept, where)
    return kept


def _content(content: JsonValue, where: str, changes: list[str]) -> JsonValue:
    """Return the content; a list of text parts becomes one text, as templates concatenate them."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        is_text = isinstance(part, dict) and part.get("type", "text") == "text"
        text = part.get("text") if isinstance(part, dict) and is_text else None
        if not isinstance(text, str):
            raise RejectLineError(
                f"{where} is a list with a part that is no text: only text can be trained"
            )
        texts.append(text)
    changes.append("content in parts joined")
    return "".join(texts)


def _check_content(message: JsonObject, where: str) -> None:
    content, role = message.get("content"), message["role"]
    speaks_otherwise = role == "assistant" and message.get("tool_calls")
    if content is None and speaks_otherwise:
        return
    if not isinstance(content, str):
        raise RejectLineError(f"{where}.content is {kind_of(content)}, a text is needed")
    if role == "assistant" and not content.strip() and not speaks_otherwise:
        raise RejectLineError(f"{where}.content is empty, there is nothing to learn")
    for name in REASONING_FIELDS:
        if name in message and not isinstance(message[name], str):
            found = kind_of(message[name])
            raise RejectLineError(f"{where}.{name} is {found}, a text is needed")
        if name in message and role != "assistant":
            raise RejectLineError(f"{where}.{name}: only the assistant has reasoning")


def _tool_calls(calls: JsonValue, where: str, role: str, changes: list[str]) -> list[JsonValue]:
    calls = _from_json(calls, where, changes)
    if role != "assistant" or not isinstance(calls, list):
        raise RejectLineError(f"{where}: a list of calls in a message of the assistant's is needed")
    return [_tool_call(call, f"{where}[{index}]", changes) for index, call in enumerate(calls)]


def _tool_call(call: JsonValue, where: str, changes: list[str]) -> JsonObject:
    if isinstance(call, dict) and "function" not in call and "name" in call:
        changes.append("bare tool calls put under 'function'")
        call = {"type": "function", "function": call}
    function = call.get("function") if isinstance(call, dict) else None
    if (
        not isinstance(call, dict)
        or not isinstance(function, dict)
        or not isinstance(function.get("name"), str)
    ):
        raise RejectLineError(f"{where} has no function with a name")
    called: JsonObject = {key: value for key, value in function.items() if value is not None}
    if "arguments" in called:
        where = f"{where}.function.arguments"
        arguments = _from_json(called["arguments"], where, changes) or {}
        if not isinstance(arguments, dict):
            raise RejectLineError(f"{where} is {kind_of(arguments)}, an object is needed")
        called["arguments"] = _object_without_nulls(arguments, changes)
    named: JsonObject = {key: value for key, value in call.items() if value is not None}
    return {**named, "function": called}


def _tools(tools: JsonValue, changes: list[str]) -> list[JsonObject] | None:
    tools = _from_json(tools, "field 'tools'", changes)
    if not tools:
        return None
    objects = as_objects(tools)
    if objects is None:
        raise RejectLineError(f"field 'tools' is {kind_of(tools)}, a list of objects is needed")
    return [_object_without_nulls(tool, changes) for tool in objects]


def _from_json(value: JsonValue, where: str, changes: list[str]) -> JsonValue:
    """Read a value that may be given as JSON text, once."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        parsed: JsonValue = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RejectLineError(f"{where} is a text that is not JSON ({error})") from None
    changes.append("arguments or tools given as JSON text read")
    return parsed


def _object_without_nulls(value: JsonObject, changes: list[str]) -> JsonObject:
    """Take out the nulls that Arrow adds to objects of unlike fields."""
    kept = {key: _without_nulls(part, changes) for key, part in value.items() if part is not None}
    if len(kept) != len(value):
        changes.append("nulls in tool calls or tools taken out")
    return kept


def _without_nulls(value: JsonValue, changes: list[str]) -> JsonValue:
    if isinstance(value, dict):
        return _object_without_nulls(value, changes)
    if isinstance(value, list):
        return [_without_nulls(part, changes) for part in value]
    return value


def _is_true(value: JsonValue) -> bool | None:
    return value if isinstance(value, bool) else None


def _is_one(value: JsonValue) -> bool | None:
    return bool(value) if value in (0, 1) else None


def _is_false(value: JsonValue) -> bool | None:
    return not value if isinstance(value, bool) else None


_LOSS_FIELDS: dict[str, tuple[Callable[[JsonValue], bool | None], str]] = {
    "loss": (_is_true, "true or false"),
    "train": (_is_true, "true or false"),
    "weight": (_is_one, "0 or 1"),
    "loss_mask": (_is_one, "0 or 1"),
    "masked": (_is_false, "true or false"),
}
"""How other tools say which messages carry loss: ours, axolotl's, OpenAI's, verl's, torchtune's."""


def _carries_loss(message: JsonObject, where: str, changes: list[str]) -> bool:
    said = {name: message[name] for name in _LOSS_FIELDS if name in message}
    is_assistants = message["role"] == "assistant"
    verdicts = set()
    for name, value in said.items():
        reading, needed = _LOSS_FIELDS[name]
        verdict = reading(value)
        if verdict is None:
            found = f"{kind_of(value)} ({value!r})"
            raise RejectLineError(f"{where}.{name} is {found}, {needed} is needed")
        if verdict and not is_assistants and name in ("loss", "train"):
            raise RejectLineError(
                f"{where}.{name} is true, but only the assistant's turns carry loss"
            )
        if name != "loss" and is_assistants:
            changes.append(f"field {name!r} read as loss")
        verdicts.add(verdict)
    if len(verdicts) > 1:
        raise RejectLineError(f"{where}: {', '.join(said)} contradict each other")
    return is_assistants and verdicts != {False}
