"""JOURNAL.jsonl: every reply as it landed, so that a call is paid once whatever happens after.

A line is written in one go behind the last whole one; a line that a kill tore is dropped when the
file is opened. Opening reads the file once and keeps an offset a reply; adding one costs the same
whatever the file holds. One process has the journal open at a time.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, NotRequired, TextIO, TypedDict

import orjson

from megatron_msm.errors import ConfigError, DataFormatError, MsmError
from megatron_msm.llm.call import Answer, Call, Finish, Reply, Usage

_FSYNC_INTERVAL_S = 1.0
_BUFFER_BYTES = 1 << 20


class JournalWriteError(MsmError):
    """The disk does not take a reply."""


class Spent(NamedTuple):
    """What the calls of a journal used."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    """Calls whose price is not known: `cost_usd` is without them."""

    def plus(self, usage: Usage, cost_usd: float | None) -> "Spent":
        """Return the sum with one call more."""
        return Spent(
            self.calls + 1,
            self.input_tokens + usage.input_tokens,
            self.output_tokens + usage.output_tokens,
            self.cost_usd + (cost_usd or 0.0),
            self.unpriced_calls + (cost_usd is None),
        )


class Journal:
    """An append-only file of replies.

    Args:
        path: The file; made if it is not there.

    Raises:
        ConfigError: Another process has it open, or it cannot be written there.
        DataFormatError: A line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            self._file: BinaryIO = path.open("a+b", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"{path}: the journal cannot be written there ({error.strerror}). Give a folder "
                "that you may write to."
            ) from None
        self._offsets: dict[str, tuple[int, int]] = {}
        self.spent: dict[str, Spent] = {}
        """By step."""
        self._synced_s = time.monotonic()
        self._end = self._read()

    def find(self, call: Call) -> Answer | None:
        """Return the journalled answer to a call; None if it has not been answered yet."""
        where = self._offsets.get(call.key)
        if where is None:
            return None
        line = os.pread(self._file.fileno(), where[1], where[0])
        row = _parse(line, self.path, where[0])
        return Answer(call, reply_of(row), cost_usd=row["cost_usd"])

    def add(self, answer: Answer) -> None:
        """Append a reply; on return the operating system has it, and the disk within a second.

        Raises:
            JournalWriteError: The disk is full or fails. The journal is as it was.
        """
        call, reply = answer.call, answer.reply
        if reply is None or call.key in self._offsets:
            raise ValueError(f"{call.address}: nothing to journal, or journalled already")
        row = {
            "key": call.key,
            "call": call.address,
            "index": call.index,
            "step": call.step,
            "reply": reply,
            "cost_usd": answer.cost_usd,
            "unix_time_s": round(time.time(), 3),
        }
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        try:
            _write_whole(self._file, line)
            self._sync_now_and_then()
        except OSError as error:
            # Whatever was written of the line would tear the next one.
            os.ftruncate(self._file.fileno(), self._end)
            raise self._write_error(error) from None
        self._offsets[call.key] = (self._end, len(line))
        self._end += len(line)
        self._count(call.step, reply.usage, answer.cost_usd)

    def sync(self) -> None:
        """Return when the disk has everything.

        Raises:
            JournalWriteError: It fails.
        """
        try:
            self._sync()
        except OSError as error:
            raise self._write_error(error) from None

    @property
    def total(self) -> Spent:
        """What all calls used."""
        sums = [sum(column) for column in zip(*self.spent.values(), strict=True)]
        return Spent(*sums) if sums else Spent()

    def __len__(self) -> int:
        """Return how many replies it holds."""
        return len(self._offsets)

    def __enter__(self) -> "Journal":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        try:
            self.sync()
        except JournalWriteError:
            if error is None:
                raise
        finally:
            self._file.close()
            self._lock.close()

    def _read(self) -> int:
        """Index the lines, cut a torn last one off, and return the file's end in bytes."""
        offset = 0
        with self.path.open("rb", buffering=_BUFFER_BYTES) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file.fileno(), offset)
                    break
                row = _parse(line, self.path, offset)
                self._offsets[row["key"]] = (offset, len(line))
                self._count(row["step"], Usage(**row["reply"]["usage"]), row["cost_usd"])
                offset += len(line)
        return offset

    def _write_error(self, error: OSError) -> JournalWriteError:
        return JournalWriteError(
            f"{self.path}: cannot be written ({error.strerror}). It holds {len(self):,} replies; "
            "those of calls in flight are lost. Make room and run the same command again: it pays "
            "for nothing that is journalled."
        )

    def _sync_now_and_then(self) -> None:
        if time.monotonic() - self._synced_s > _FSYNC_INTERVAL_S:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_s = time.monotonic()

    def _count(self, step: str, usage: Usage, cost_usd: float | None) -> None:
        self.spent[step] = self.spent.get(step, Spent()).plus(usage, cost_usd)


class RecordedReply(TypedDict):
    """A reply in a line; hand-written ones may have the text alone."""

    text: str
    finish: NotRequired[Finish]
    usage: NotRequired[dict[str, int]]
    model: NotRequired[str]


class JournalRow(TypedDict):
    """One line; recordings that somebody wrote may have `call` and `reply` alone."""

    reply: RecordedReply
    call: str
    index: NotRequired[int]
    key: NotRequired[str]
    step: NotRequired[str]
    cost_usd: NotRequired[float | None]


def read_journal(path: Path) -> Iterator[JournalRow]:
    """Yield the lines of a journal, or of a recording that somebody wrote.

    Raises:
        ConfigError: There is no such file.
        DataFormatError: A line is not JSON, or has no call or no reply.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file. Give the recorded replies.")
    offset = 0
    with path.open("rb") as file:
        for line in file:
            row = _parse(line, path, offset, needs=("call", "reply"))
            offset += len(line)
            yield row


def reply_of(row: JournalRow) -> Reply:
    """Return the reply of a journal's line; what a hand-written one leaves out is nought."""
    reply = row["reply"]
    return Reply(
        text=reply["text"],
        finish=reply.get("finish", "stop"),
        usage=Usage(**reply.get("usage", {})),
        model=reply.get("model", ""),
    )


def _parse(
    line: bytes, path: Path, offset: int, *, needs: tuple[str, ...] = ("key", "step", "cost_usd")
) -> JournalRow:
    try:
        row: JournalRow = orjson.loads(line)
        missing = [name for name in needs if name not in row]
        if missing:
            raise KeyError(missing[0])
        row["reply"]["text"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DataFormatError(
            f"{path}: damaged at byte {offset} ({error}). Delete that line: its call is made again."
        ) from None
    return row


def _write_whole(file: BinaryIO, line: bytes) -> None:
    written = os.write(file.fileno(), line)
    while written < len(line):
        written += os.write(file.fileno(), line[written:])


def _locked(path: Path) -> TextIO:
    """Return an open file whose lock is the right to use the journal; it names the holder."""
    lock = path.with_name(path.name + ".lock")
    file = lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        by = lock.read_text().strip() or "another process"
        raise ConfigError(
            f"{path}: in use by {by}. Wait for it, or stop it: two runs would pay calls twice."
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
