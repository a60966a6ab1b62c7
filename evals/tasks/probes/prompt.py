"""How a probe becomes tokens: as running text, or as a chat turn.

As text, the way a document was trained: the text, a space and an answer, after a BOS where the
documents had one. Text and answer are tokenised together, as they were in documents; a token that
spans both is part of every answer. In a chat turn, prompt and answer are tokenised apart.
"""

from typing import TYPE_CHECKING, Literal

from evals.models.chat_turn import encode, encode_chat, render_user_turn
from evals.models.continuations import Continuation, Ids
from evals.tasks.probes.items import ProbeItem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Form = Literal["text", "chat"]

FINISH_TEMPLATE = """\
{text} ...

Finish the sentence. Answer with the missing words only."""
"""Asks in a chat turn for the end of an unfinished text."""

QUESTION_TEMPLATE = "{text}"


def text_continuations(
    item: ProbeItem, tokenizer: "PreTrainedTokenizerBase", *, start: Ids
) -> list[Continuation]:
    """Return the answers after the text, the right one first.

    Args:
        item: The item.
        tokenizer: A transformers tokenizer.
        start: What a document starts with: a BOS or nothing.
    """
    text = encode(tokenizer, item.text)
    wholes = [encode(tokenizer, f"{item.text} {answer}") for answer in item.answers]
    length = len(text)
    while any(whole[:length] != text[:length] for whole in wholes):
        length -= 1
    prompt = start + text[:length]
    return [Continuation(prompt, whole[length:]) for whole in wholes]


def chat_continuations(
    item: ProbeItem, tokenizer: "PreTrainedTokenizerBase", template: str
) -> list[Continuation]:
    """Return the answers in a chat, the right one first."""
    prompt = encode_chat(tokenizer, render_user_turn(tokenizer, template.format(text=item.text)))
    return [Continuation(prompt, encode(tokenizer, answer)) for answer in item.answers]
