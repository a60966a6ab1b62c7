"""Asking models on behalf of a step: which endpoint, in which form, and again where a reply is bad.

A reply that was declined, cut off or is not in the form that was asked for is asked for again under
the next index, a few times; every such reply is counted. So a rerun from the journal takes the same
way.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from data_prep.generate.counts import GenerationCounts
from data_prep.generate.inputs import StepInputs
from data_prep.generate.settings import GenerateConfig
from megatron_msm.errors import UnansweredError
from megatron_msm.formats.json_types import JsonObject
from megatron_msm.llm.call import Answer, Call, Reply
from megatron_msm.llm.pool import Pool
from megatron_msm.llm.structured import read_structured

_TRIES = 3


class ReplyForm(BaseModel):
    """Base of the forms in which steps ask for JSON.

    What a model adds is ignored; servers that can are told not to add anything.
    """

    model_config = ConfigDict(
        extra="ignore", frozen=True, json_schema_extra={"additionalProperties": False}
    )


Form = TypeVar("Form", bound=ReplyForm)


class Ask(NamedTuple):
    """One question of a step."""

    address: str
    """Names the item: see `Call.address`."""
    prompt: str
    system: str = ""
    inputs: StepInputs | None = None
    """What the prompt is made from."""


class Watcher(Protocol):
    """Looks on while a run asks."""

    def begin(self, step: str, num_calls: int) -> None:
        """See that a step is about to make calls."""

    def answered(self, answer: Answer) -> None:
        """See an answer, replayed or new."""


class Asker:
    """Asks the endpoints of a run.

    Args:
        pool: Open, with the endpoints of the configuration.
        config: Says who writes and who judges.
        counts: Where outcomes are counted.
        watcher: A screen.
    """

    def __init__(
        self,
        pool: Pool,
        config: GenerateConfig,
        counts: GenerationCounts,
        *,
        watcher: Watcher | None = None,
    ) -> None:
        self.counts = counts
        self._pool = pool
        self._config = config
        self._watcher = watcher

    def write(
        self, step: str, asks: Sequence[Ask], *, temperature: float | None, max_tokens: int
    ) -> list[Answer]:
        """Have texts written, one attempt each; a declined or cut-off one is the caller's case.

        Raises:
            UnansweredError: A server did not answer some of them.
        """
        calls = [_call(ask, step, temperature, max_tokens) for ask in asks]
        return self._answers(step, calls, endpoint=self._writer)

    def read(
        self,
        step: str,
        asks: Sequence[Ask],
        form: type[Form],
        *,
        temperature: float | None = None,
        max_tokens: int = 4096,
        is_judged: bool = False,
    ) -> list[Form | None]:
        """Have questions answered in a form; None where no try brought it.

        Args:
            step: The step that asks.
            asks: The questions.
            form: What a reply must hold.
            temperature: None for the server's own.
            max_tokens: Tokens of a reply.
            is_judged: Whether the judge is asked, rather than the writers.

        Raises:
            UnansweredError: A server did not answer some of them.
        """
        contents: list[Form | None] = [None] * len(asks)
        schema = form.model_json_schema()
        for attempt in range(_TRIES):
            open_ones = [index for index, content in enumerate(contents) if content is None]
            calls = [
                _call(asks[index], step, temperature, max_tokens, schema=schema, attempt=attempt)
                for index in open_ones
            ]
            endpoint = self._config.judge_name if is_judged else self._writer
            answers = self._answers(step, calls, endpoint=endpoint)
            for index, answer in zip(open_ones, answers, strict=True):
                contents[index] = self._content(step, answer.reply, form)
        return contents

    def _answers(
        self, step: str, calls: Sequence[Call], *, endpoint: str | Callable[[Call], str]
    ) -> list[Answer]:
        if self._watcher is not None:
            self._watcher.begin(step, len(calls))
        on_answer = None if self._watcher is None else self._watcher.answered
        answers = self._pool.answer(calls, endpoint=endpoint, on_answer=on_answer)
        # What is only late must not be missing from a corpus: which rows it holds would then depend
        # on the network.
        if late := [answer for answer in answers if answer.may_pass]:
            why = (late[-1].failure or "").rstrip(".")
            raise UnansweredError(
                f"{step}: {len(late):,} of {len(calls):,} calls were not answered, the last for: "
                f"{why}. The others are kept: run the same command to go on."
            )
        for answer in answers:
            self.counts.add_reply(answer)
        return answers

    def _content(self, step: str, reply: Reply | None, form: type[Form]) -> Form | None:
        if reply is None or reply.finish != "stop":
            return None
        found = read_structured(reply.text, form)
        if found.content is None:
            self.counts.add(step, "not in the form asked for")
        elif found.is_repaired:
            self.counts.add(step, "JSON mended")
        return found.content

    def _writer(self, call: Call) -> str:
        """Return the endpoint that writes a call: the same whatever else is asked."""
        writers = self._config.writers
        digest = hashlib.sha256(f"{self._config.seed}:{call.address}".encode()).digest()
        return writers[int.from_bytes(digest[:8], "big") % len(writers)]


def _call(
    ask: Ask,
    step: str,
    temperature: float | None,
    max_tokens: int,
    *,
    schema: JsonObject | None = None,
    attempt: int = 0,
) -> Call:
    return Call(
        address=ask.address,
        step=step,
        prompt=ask.prompt,
        system=ask.system,
        temperature=temperature,
        max_tokens=max_tokens,
        schema=schema,
        index=attempt,
        inputs=ask.inputs,
    )
