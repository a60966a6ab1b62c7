"""Rendering a conversation with the tokenizer's own chat template, as transformers does.

The template is somebody's program: it runs in jinja2's immutable sandbox and sees plain data only.
Its clock is ours and stands still, so that the same input gives the same tokens on another day.

Source: transformers 5.24 `utils/chat_template_utils.py`, `_cached_compile_jinja_template`.
"""

import datetime
import json
import re
from collections.abc import Mapping

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_prep.reading.messages import Message
from data_prep.reading.records import RejectLineError
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.json_types import JsonObject, JsonValue

_OUR_VARIABLES = ("messages", "tools", "documents", "add_generation_prompt")
_GLOBALS = ("raise_exception", "strftime_now", "namespace", "range")


class ChatTemplate:
    """A compiled chat template.

    Args:
        text: The template.
        special_tokens: Variables such as `bos_token`, as the tokenizer names them.
        today: What `strftime_now` tells the template.
        arguments: Further variables, such as `enable_thinking`.

    Raises:
        DataFormatError: The text is not a jinja template.
        ConfigError: The template does not know an argument, or it is not the user's to set.
    """

    def __init__(
        self,
        text: str,
        special_tokens: Mapping[str, str | list[str]],
        *,
        today: datetime.date,
        arguments: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self.text = text
        self._arguments = dict(arguments or {})
        self._special_tokens = dict(special_tokens)
        try:
            environment = _environment(today)
            self._variables = jinja2.meta.find_undeclared_variables(environment.parse(text))
            self._template = environment.from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise DataFormatError(
                f"chat template, line {error.lineno}: {error.message}. A jinja2 template is "
                "needed; give one with --chat-template FILE."
            ) from None
        self._check_arguments()

    @property
    def has_arguments(self) -> bool:
        """Whether variables were given by the user."""
        return bool(self._arguments)

    @property
    def uses_date(self) -> bool:
        """Whether the rendering depends on the day."""
        return "strftime_now" in self.text

    @property
    def free_variables(self) -> list[str]:
        """The variables that `--template-arg` may set and that are not set yet."""
        ours = {*_OUR_VARIABLES, *self._special_tokens, *_GLOBALS, *self._arguments}
        return sorted(self._variables - ours)

    def reads(self, word: str) -> bool:
        """Whether a name, such as a message's key, stands anywhere in the template's text."""
        return re.search(rf"\b{re.escape(word)}\b", self.text) is not None

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[JsonObject] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return the rendered conversation.

        Raises:
            RejectLineError: The template refuses these messages, or fails on them.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
                **self._arguments,
            )
        except jinja2.TemplateError as error:
            raise RejectLineError(f"the chat template refuses it: {error}") from None
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise RejectLineError(f"the chat template fails on it: {reason}") from None

    def _check_arguments(self) -> None:
        ours = {*_OUR_VARIABLES, *self._special_tokens, *_GLOBALS}
        for name in self._arguments:
            if name in ours:
                raise ConfigError(
                    f"--template-arg {name}: is set by the data or the tokenizer. Leave it out."
                )
            if name not in self._variables:
                raise ConfigError(
                    f"--template-arg {name}: the chat template has no such variable. It reads "
                    f"{', '.join(sorted(self._variables - ours)) or 'none'}."
                )


class _GenerationTag(jinja2.ext.Extension):
    """Lets `{% generation %}` through: some templates mark with it what we derive otherwise."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """jinja2's namespace without names that begin with an underscore."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a template may not set {name!r}")
        super().__setitem__(name, value)


def _environment(today: datetime.date) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = today.strftime
    environment.globals["namespace"] = _Namespace
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Replace jinja2's filter, which escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
