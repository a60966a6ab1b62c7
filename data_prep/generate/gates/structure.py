"""Whether a reply is whole: ended by itself, with the blocks that were asked for, nothing else."""

import re
from typing import NamedTuple

from megatron_msm.llm.call import Answer

_DOCUMENT = re.compile(r"<document>(.*?)</document>", re.DOTALL)
_THINK = re.compile(r"\A\s*<think>(.*?)</think>(.*)\Z", re.DOTALL)
_ANY_TAG = re.compile(
    r"</?(?:document|plan|scratchpad|think|thinking|answer|content)\b[^>]*>", re.I
)
_PLACEHOLDERS = re.compile(
    r"\{\{.*?\}\}|\[(?:insert|your|name|date|company|author|recipient|link|placeholder|todo|tbd|"
    r"redacted|x+)\b[^\]\n]{0,40}\]|<(?:name|date|company|insert)\b[^>\n]{0,40}>|\blorem ipsum\b|"
    r"\bTODO\b|\bTBD\b|\bXXX+\b",
    re.IGNORECASE,
)


class Text(NamedTuple):
    """What a reply held, or why it is refused."""

    text: str = ""
    reasoning: str = ""
    """What an answer thought first."""
    refusal: str | None = None


def document_of(answer: Answer) -> Text:
    """Return the document in an answer."""
    if problem := _not_whole(answer):
        return Text(refusal=problem)
    reply = answer.reply
    assert reply is not None
    found = _DOCUMENT.findall(reply.text)
    if len(found) != 1:
        return Text(refusal=f"{len(found)} whole <document> blocks, one is needed")
    return _checked(Text(found[0].strip()))


def answer_of(answer: Answer) -> Text:
    """Return what was answered, and the reasoning before it."""
    if problem := _not_whole(answer):
        return Text(refusal=problem)
    reply = answer.reply
    assert reply is not None
    found = _THINK.match(reply.text)
    if found is None:
        return Text(refusal="no whole <think> block at its beginning")
    return _checked(Text(found[2].strip(), found[1].strip()))


def _not_whole(answer: Answer) -> str | None:
    reply = answer.reply
    if reply is None:
        return f"no reply: {answer.failure}"
    if reply.finish == "length":
        return "cut off at max_tokens"
    if reply.finish == "refusal":
        return "declined by the model"
    return None if reply.finish == "stop" else "ended for another reason than its end"


def _checked(text: Text) -> Text:
    for part in (text.text, text.reasoning):
        if tag := _ANY_TAG.search(part):
            return Text(refusal=f"holds the tag {tag[0]}")
        if left := _PLACEHOLDERS.search(part):
            return Text(refusal=f"holds the placeholder {left[0]!r}")
    return text if text.text else Text(refusal="empty")
