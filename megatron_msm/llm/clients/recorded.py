"""Recorded replies: a journal of an earlier run, or lines that somebody wrote by hand."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.files import write_bytes_atomic
from megatron_msm.llm.call import Call, CallError, Reply
from megatron_msm.llm.journal import read_journal, reply_of

UNANSWERED_FILE = "unanswered.jsonl"


class RecordedClient:
    """Answers by the call's address and index.

    The prompt is not compared: a recording outlives the wording of a template. What it was recorded
    with is the business of whoever publishes it.

    Args:
        path: The recording.

    Raises:
        ConfigError: There is no such file.
        DataFormatError: A line is damaged, or two lines answer one call differently.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._replies: dict[tuple[str, int], Reply] = {}
        for row in read_journal(path):
            called, reply = (row["call"], row.get("index", 0)), reply_of(row)
            if self._replies.setdefault(called, reply) != reply:
                raise DataFormatError(
                    f"{path}: two different replies for call {called[0]!r}, index {called[1]}. "
                    "Leave one of them."
                )

    def check(self, calls: Sequence[Call], unanswered: Path) -> None:
        """Check that calls can be answered, all of them before the first.

        Args:
            calls: What is about to be asked.
            unanswered: Where to write the prompts of those that cannot, a JSON line each, for
                whoever makes the recording.

        Raises:
            ConfigError: The recording lacks some.
        """
        lacking = [call for call in calls if (call.address, call.index) not in self._replies]
        if not lacking:
            return
        write_bytes_atomic(unanswered, b"".join(map(_as_line, lacking)))
        first = lacking[0]
        raise ConfigError(
            f"{self._path} holds no reply for {len(lacking):,} of {len(calls):,} calls of the step "
            f"{first.step!r}, the first {first.address!r}, index {first.index}. Their prompts are "
            f"in {unanswered}, one a line: add a line "
            '{"call": ..., "index": ..., "reply": {"text": ...}} for each to the recording.'
        )

    async def complete(self, call: Call) -> Reply:
        """Return the recorded reply.

        Raises:
            CallError: There is none.
        """
        reply = self._replies.get((call.address, call.index))
        if reply is None:
            raise CallError(
                f"{self._path} holds no reply for call {call.address!r}, index {call.index}",
                outcome="fatal",
            )
        return reply

    async def close(self) -> None:
        """Nothing to give back."""


def _as_line(call: Call) -> bytes:
    asked = {"call": call.address, "index": call.index, "step": call.step}
    asked |= {"system": call.system, "prompt": call.prompt}
    return orjson.dumps(asked, option=orjson.OPT_APPEND_NEWLINE)
