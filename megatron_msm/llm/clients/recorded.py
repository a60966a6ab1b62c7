"""Recorded replies: a journal of an earlier run, or lines that somebody wrote by hand."""

from pathlib import Path

from megatron_msm.errors import DataFormatError
from megatron_msm.llm.call import Call, CallError, Reply
from megatron_msm.llm.journal import read_journal, reply_of


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
