"""The spelling of a conversation that its template was written for.

Templates differ in what they expect: arguments of a tool call as an object, or as JSON text; no
content as null, or as an empty text; contents as text, or as a list of parts. Given the other one
they fail, write Python's `{'a': 1}` or `None`, escape the text a second time, or leave it out. The
first spelling without such a trace is taken.
"""

import json
from collections.abc import Iterator

from data_prep.chats.template import ChatTemplate
from data_prep.reading.messages import CalledFunction, Message, ToolCall
from data_prep.reading.records import RejectLineError
from megatron_msm.formats.json_types import JsonObject


def spelled_for(
    template: ChatTemplate, messages: list[Message], tools: list[JsonObject] | None
) -> tuple[list[Message], str]:
    """Return the messages in the spelling that this template renders faithfully, and the rendering.

    Raises:
        RejectLineError: The template refuses every spelling; the reason is that of the first.
    """
    first_error: RejectLineError | None = None
    for candidate in _spellings(messages):
        try:
            text = template.render(candidate, tools=tools)
        except RejectLineError as error:
            first_error = first_error or error
            continue
        if not _has_trace(candidate, text):
            return candidate, text
    raise first_error or RejectLineError(
        "the chat template leaves out its contents, or writes the arguments of its tool calls "
        "neither from an object nor from JSON text as JSON"
    )


def _spellings(messages: list[Message]) -> Iterator[list[Message]]:
    yield messages
    calls = any(message.get("tool_calls") for message in messages)
    if not calls:
        yield [_in_parts(message) for message in messages]
    null = any("content" in message and message["content"] is None for message in messages)
    if null:
        yield [_with_empty_content(message) for message in messages]
    if calls:
        as_text = [_with_arguments_as_text(message) for message in messages]
        yield as_text
        if null:
            yield [_with_empty_content(message) for message in as_text]


def text_of(message: Message) -> str:
    """Return the text of a message's content, however it is spelled; empty if there is none."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


def _in_parts(message: Message) -> Message:
    return {**message, "content": [{"type": "text", "text": text_of(message)}]}


def _with_empty_content(message: Message) -> Message:
    if "content" in message and message["content"] is None:
        return {**message, "content": ""}
    return message


def _with_arguments_as_text(message: Message) -> Message:
    if not message.get("tool_calls"):
        return message
    calls: list[ToolCall] = [
        {**call, "function": _as_text(call["function"])} for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _as_text(function: CalledFunction) -> CalledFunction:
    if "arguments" not in function:
        return function
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def _has_trace(messages: list[Message], text: str) -> bool:
    """Whether a value was left out, written in another language's spelling, or escaped twice."""
    first = next((said for said in map(text_of, messages) if said.strip()), "")
    if first.strip() and not any(word in text for word in first.split()):
        return True
    for message in messages:
        if "content" in message and message["content"] is None and _says_none(messages, text):
            return True
        for call in message.get("tool_calls") or ():
            arguments = call["function"].get("arguments")
            if isinstance(arguments, str):
                if json.dumps(arguments, ensure_ascii=False)[1:-1] != arguments:
                    escaped = json.dumps(arguments, ensure_ascii=False)[1:-1]
                    if escaped in text or json.dumps(arguments)[1:-1] in text:
                        return True
            elif arguments and _is_pythons(str(arguments), arguments, text):
                return True
    return False


def _is_pythons(written: str, arguments: JsonObject, text: str) -> bool:
    return written in text and written != json.dumps(arguments, ensure_ascii=False)


def _says_none(messages: list[Message], text: str) -> bool:
    """Whether the text says None more often than the messages do."""
    said = json.dumps(messages, ensure_ascii=False, default=str).count("None")
    return text.count("None") > said
