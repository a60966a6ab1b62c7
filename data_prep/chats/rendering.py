"""Conversations rendered by a chat template, with the turns of the assistant found in them."""

from dataclasses import dataclass, replace

from data_prep.chats.conversation import Conversation, EndOfTurn, Span, Turn, positions
from data_prep.chats.marks import ControlPattern, choose_marks, mark_messages, mark_value
from data_prep.chats.spelling import spelled_for, text_of
from data_prep.chats.template import ChatTemplate
from data_prep.chats.turns import END_OF_TURN, TurnFinder
from data_prep.reading.messages import REASONING_FIELDS, Message
from data_prep.reading.records import RejectLineError
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.formats.tokenizer_files import TokenizerFiles


@dataclass(frozen=True)
class RenderedChat:
    """A rendered conversation."""

    text: str
    control: list[Span]
    """Spans of the added tokens that the template or the assistant wrote as such."""
    spells_control: bool
    """Whether other contents spell such tokens too, which must become plain text."""
    turns: list[Turn]
    """The wanted turns of the assistant, in order."""


class ChatRenderer:
    """Renders conversations and finds the assistant's turns.

    Args:
        template: The chat template.
        files: The tokenizer's added tokens.
        ends: Which tokens end a turn.
        continues_prompt: Whether a last turn that the template does not render as a continuation of
            its generation prompt is taken as written: behind the prompt, the content.
    """

    def __init__(
        self,
        template: ChatTemplate,
        files: TokenizerFiles,
        ends: EndOfTurn | None = None,
        *,
        continues_prompt: bool = False,
    ) -> None:
        self.template = template
        self.ends = ends or EndOfTurn()
        self.written_tokens = {
            token: index
            for token, index in files.added_tokens.items()
            if token not in files.control_tokens and _is_written_by(template.text, token)
        }
        """Added tokens that are not special, but that the template writes: `<think>`."""
        self._files = files
        self._continues_prompt = continues_prompt
        self._special = ControlPattern(files.control_tokens)
        self._every = ControlPattern({**files.control_tokens, **self.written_tokens})
        never = {*self.ends.stops, files.bos_token, self.ends.usual}
        known = bool(self.ends.stops or self.ends.usual)
        self._never_inside = (
            ControlPattern([token for token in files.control_tokens if token in never])
            if known
            else self._special
        )
        """What the assistant cannot write inside a turn, as its generation would end there."""
        self._finder = TurnFinder(
            template,
            self._conversation,
            special=self._special,
            markup=self._every,
            ends=self.ends,
        )

    def with_usual_end(self, token: str) -> "ChatRenderer":
        """Return a renderer that knows what a plain turn ends with."""
        return ChatRenderer(
            self.template,
            self._files,
            replace(self.ends, usual=token),
            continues_prompt=self._continues_prompt,
        )

    def render(
        self,
        messages: list[Message],
        tools: list[JsonObject] | None = None,
        *,
        trained: list[bool] | None = None,
    ) -> RenderedChat:
        """Render one conversation.

        Args:
            messages: The messages.
            tools: Tool descriptions.
            trained: The messages whose turns are wanted; None: all of the assistant's. The others
                may be rendered differently as history than they were when they were written.

        Raises:
            RejectLineError: The template refuses it, its turns cannot be told exactly, or a turn
                leaves out a part of its message.
        """
        messages, text = spelled_for(self.template, messages, tools)
        wanted = [
            index
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and (trained is None or trained[index])
        ]
        chat = self._conversation(messages, tools, text)
        if self._continues_prompt and wanted == [len(messages) - 1] and wanted != [0]:
            prompt = self._finder.prompt(chat, wanted[0])
            if not text.startswith(prompt):
                chat = self._continued(chat, prompt)
        turns = [self._finder.find(chat, index) for index in wanted]
        spells = self._every.find(chat.text) != chat.control
        return RenderedChat(chat.text, chat.control, spells, turns)

    def _conversation(
        self, messages: list[Message], tools: list[JsonObject] | None, text: str
    ) -> Conversation:
        marks = choose_marks([messages, tools])
        marked_tools = mark_value(tools, self._every, marks.cut)
        marked_messages = mark_messages(messages, marks, self._every, self._never_inside)
        try:
            marked = self.template.render(marked_messages, tools=marked_tools)
        except RejectLineError:
            marked = ""
        if marks.remove(marked) != text:
            raise RejectLineError(
                "the chat template looks into the contents of its messages (they spell a control "
                "token, or are cut or reordered), so it cannot be told what is content"
            )
        return Conversation(messages, tools, text, *positions(marked, marks, self._every))

    def _continued(self, chat: Conversation, prompt: str) -> Conversation:
        """Return the conversation with its last turn as the model would write it after `prompt`.

        Templates of reasoning models leave the reasoning out of every turn they render, and open
        it in the generation prompt: there the turn is the content as it stands.
        """
        index = len(chat.messages) - 1
        message = chat.messages[index]
        if message.get("tool_calls"):
            raise RejectLineError(
                f"the chat template does not go on from its own generation prompt in "
                f"messages[{index}], and how a tool call is written there cannot be told"
            )
        stop = len(chat.text.rstrip())
        end = [span for span in chat.control if span[1] == stop]
        token = chat.text[slice(*end[0])] if end else self.ends.appended
        if token is None:
            raise RejectLineError(
                f"the chat template ends messages[{index}] without a special token; {END_OF_TURN}"
            )
        before = self._conversation(
            chat.messages[:-1],
            chat.tools,
            self.template.render(chat.messages[:-1], tools=chat.tools),
        )
        control = [span for span in self._every.find(prompt) if span[0] >= len(before.text)]
        if not prompt.startswith(before.text):
            raise RejectLineError(
                f"the chat template renders what comes before messages[{index}] differently with "
                "its generation prompt"
            )
        text = prompt + _after_prompt(message, prompt)
        spans = [
            (start + len(prompt), end + len(prompt))
            for start, end in self._every.find(text[len(prompt) :])
            if not self._never_inside.find(text[len(prompt) :][start:end])
        ]
        continued = Conversation(
            chat.messages,
            chat.tools,
            text,
            [*before.control, *control, *spans],
            [*before.content_ends, len(text.rstrip())],
        )
        continued.append(token)
        return continued


def _after_prompt(message: Message, prompt: str) -> str:
    """Return what the model writes behind a prompt that may have opened its reasoning."""
    content = text_of(message)
    opens = prompt.rstrip().endswith("<think>")
    reasoning = next((message[name] for name in REASONING_FIELDS if name in message), None)
    if reasoning is not None:
        head = "" if opens else "<think>\n"
        return f"{head}{reasoning.strip()}\n</think>\n\n{content.lstrip()}"
    if opens and content.lstrip().startswith("<think>"):
        rest = content.lstrip().removeprefix("<think>")
        return rest.removeprefix("\n") if prompt.endswith("\n") else rest
    return content


def _is_written_by(template: str, token: str) -> bool:
    """Whether an added token looks like markup and stands in the template's text."""
    has_shape = (token[0], token[-1]) in {("<", ">"), ("[", "]")} and not any(
        map(str.isspace, token)
    )
    return has_shape and token in template
