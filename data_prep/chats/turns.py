r"""Where the assistant's turns are in a rendered conversation.

    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n
                                                          ^     ^         ^
                                                        start  eot     eot_end

A turn *starts* where the rendering of everything before it, with the generation prompt, ends: that
is where the model takes over when it is used. It *ends* with the last special token that the
template writes for this message, on which generation has to stop. Both are found by rendering the
conversation up to the message, never by searching its contents; what cannot be shown to be exact is
refused, and so is a turn that leaves out a part of its message.
"""

from collections.abc import Callable

from data_prep.chats.conversation import Conversation, EndOfTurn, Span, Turn
from data_prep.chats.marks import ControlPattern
from data_prep.chats.presence import missing_part
from data_prep.chats.spelling import text_of
from data_prep.chats.template import ChatTemplate
from data_prep.reading.messages import Message
from data_prep.reading.records import RejectLineError
from megatron_msm.formats.json_types import JsonObject

ConversationOf = Callable[[list[Message], list[JsonObject] | None, str], Conversation]
_TURNS_LAST = (
    "--turns last makes each of the assistant's turns a row of its own, with what comes before it "
    "as the template renders it then"
)
END_OF_TURN = (
    "--end-of-turn TOKEN names a token that ends turns beside the tokenizer's eos_token and those "
    "of generation_config.json"
)


_OTHER_TEMPLATE = (
    "give a template that writes it with --chat-template FILE, and import the model with the same "
    "template, as `msm train` refuses a dataset of another one; reasoning may also stand in the "
    "content, as <think>...</think>"
)


class TurnFinder:
    """Finds turns, or says why they cannot be told.

    Args:
        template: The chat template.
        conversation_of: Makes a conversation of messages, tools and their rendering.
        special: The tokenizer's special tokens.
        markup: Those and the other added tokens that the template writes.
        ends: Which tokens end a turn.
    """

    def __init__(
        self,
        template: ChatTemplate,
        conversation_of: ConversationOf,
        *,
        special: ControlPattern,
        markup: ControlPattern,
        ends: EndOfTurn,
    ) -> None:
        self._template = template
        self._conversation_of = conversation_of
        self._special = special
        self._markup = markup
        self._ends = ends

    def prompt(self, chat: Conversation, index: int) -> str:
        """Return the generation prompt of a message: what generation begins with."""
        return self._template.render(
            chat.messages[:index], tools=chat.tools, add_generation_prompt=True
        )

    def find(self, chat: Conversation, index: int) -> Turn:
        """Return the turn of a message of the assistant's.

        Raises:
            RejectLineError: It cannot be told exactly, or leaves out a part of the message.
        """
        where = f"messages[{index}]"
        if index == 0:
            raise RejectLineError(f"{where} is the assistant's: a turn before it is needed")
        prompt = self.prompt(chat, index)
        if not chat.text.startswith(prompt):
            raise RejectLineError(self._why_no_start(chat, index, prompt))
        turn = Turn(index, len(prompt), *self._end_of(chat, index, len(prompt)))
        said = chat.text[turn.start : turn.eot]
        self._check_ignored_prompt(chat, turn, prompt)
        missing = missing_part(chat.messages[index], said, self._markup)
        if missing is not None:
            own = self._template.render(chat.messages[: index + 1], tools=chat.tools)
            is_there = not missing_part(chat.messages[index], own[len(prompt) :], self._markup)
            raise RejectLineError(
                f"the chat template leaves out {where}.{missing}, or writes it elsewhere: the "
                "model would be trained to answer without it; "
                f"{_TURNS_LAST if is_there else _OTHER_TEMPLATE}"
            )
        return turn

    def _why_no_start(self, chat: Conversation, index: int, prompt: str) -> str:
        where = f"messages[{index}]"
        own = self._template.render(chat.messages[: index + 1], tools=chat.tools)
        if own.startswith(prompt):
            return (
                f"the chat template renders what comes before {where} differently when the "
                f"conversation goes on, so the start of the turn cannot be told; {_TURNS_LAST}"
            )
        return (
            f"the chat template does not go on from its own generation prompt in {where}: it "
            f"writes {_departure(own, prompt)!r} where the prompt ends in {prompt[-24:]!r}; "
            "--turns last writes the turn behind the prompt, as the model does"
        )

    def _end_of(self, chat: Conversation, index: int, start: int) -> Span:
        """Return the span of the end-of-turn token of the turn that starts at `start`."""
        where = f"messages[{index}]"
        span = self._written_end(chat, index, start)
        token = chat.text[slice(*span)]
        speaks = bool(text_of(chat.messages[index]).strip())
        ends = [end for end in chat.content_ends if start < end <= span[0]]
        if speaks and not ends:
            raise RejectLineError(
                f"the chat template leaves out or moves {where}.content: the model would be "
                "trained to answer without it"
            )
        if self._ends.is_wrong(token):
            stops = ", ".join(sorted(self._ends.stops)) or self._ends.usual
            raise RejectLineError(
                f"the chat template ends {where} with {token!r}, on which generation does not stop "
                f"(it stops on {stops}); {END_OF_TURN}"
            )
        return span

    def _written_end(self, chat: Conversation, index: int, start: int) -> Span:
        """Return the last special token that the template writes for the message."""
        where = f"messages[{index}]"
        messages = chat.messages[: index + 1]
        is_last = len(messages) == len(chat.messages)
        text = chat.text if is_last else self._template.render(messages, tools=chat.tools)
        stop = len(text.rstrip())
        goes_on = chat.text.startswith(text[:stop])
        own = chat if goes_on else self._conversation_of(messages, chat.tools, text)
        closing = self._closing(own, start, stop)
        if not closing:
            return self._appended_end(chat, len(text), where)
        # A template may write one more token behind a conversation than behind a turn in it.
        for span in reversed(closing):
            if chat.text.startswith(own.text[: span[1]]):
                return span
        raise RejectLineError(
            f"the chat template renders {where} as history otherwise than as the last turn, which "
            f"is what the model writes; {_TURNS_LAST}"
        )

    def _closing(self, own: Conversation, start: int, stop: int) -> list[Span]:
        """Return the special tokens with which a text ends, but for white space."""
        said = max((end for end in own.content_ends if end <= stop), default=start)
        inside = [span for span in own.control if max(start, said) <= span[0] and span[1] <= stop]
        closing: list[Span] = []
        for first, last in reversed(inside):
            is_special = self._special.find(own.text[first:last])
            if not is_special or own.text[last:stop].strip():
                break
            closing.insert(0, (first, last))
            stop = first
        return closing

    def _appended_end(self, chat: Conversation, stop: int, where: str) -> Span:
        """Return the token behind the turn: the opener of the next message, or one of ours."""
        token = self._ends.appended
        if token is None:
            raise RejectLineError(
                f"the chat template ends {where} without a special token; {END_OF_TURN}"
            )
        if stop >= len(chat.text):
            return chat.append(token)
        following = [span for span in chat.control if span[0] == stop]
        if following and chat.text[slice(*following[0])] in {token, *self._ends.stops}:
            return following[0]
        raise RejectLineError(
            f"the chat template writes neither {token!r} nor another token that ends turns right "
            f"behind {where}; {_TURNS_LAST}"
        )

    def _check_ignored_prompt(self, chat: Conversation, turn: Turn, prompt: str) -> None:
        """Refuse a header in the turn of a template that ignores `add_generation_prompt`.

        It would be trained as if it were the assistant's.
        """
        content = text_of(chat.messages[turn.message]).strip()
        if not content:
            return
        head, found, _ = chat.text[turn.start : turn.eot].partition(content)
        written = [head[slice(*span)] for span in self._markup.find(head)]
        for token in written:
            head = head.replace(token, "")
        if not found or not head.strip():
            return
        if self._template.render(chat.messages[: turn.message], tools=chat.tools) == prompt:
            raise RejectLineError(
                f"beside its content {content[:40]!r}, the assistant's turn has {head!r}, which "
                "should be part of the generation prompt"
            )


def _departure(text: str, prompt: str) -> str:
    """Return the first characters in which a text departs from its prompt."""
    same = 0
    for ours, theirs in zip(text, prompt, strict=False):
        if ours != theirs:
            break
        same += 1
    return text[same : same + 40]
