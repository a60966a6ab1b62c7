import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.llm.call import Answer, Call, Reply, Usage
from megatron_msm.llm.journal import Journal, Spent


def _answer(index: int, text: str = "yes", cost_usd: float | None = 0.5) -> Answer:
    call = Call(address=f"documents/{index}", step="documents", prompt="write", model="m")
    return Answer(call, Reply(text, "stop", Usage(10, 5), "m-1"), cost_usd=cost_usd)


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for index in range(3):
            journal.add(_answer(index, text=f"text {index} é\n"))
    with Journal(path) as journal:
        assert len(journal) == 3
        found = journal.find(_answer(1).call)
        assert found is not None
        assert found.reply == Reply("text 1 é\n", "stop", Usage(10, 5), "m-1")
        assert found.cost_usd == 0.5
        assert journal.spent == {"documents": Spent(3, 30, 15, 1.5, 0)}


@pytest.mark.parametrize(
    "changed",
    [
        {"address": "documents/other"},
        {"prompt": "write more"},
        {"system": "be brief"},
        {"model": "other"},
        {"temperature": 0.5},
        {"max_tokens": 7},
        {"schema": {"type": "object"}},
        {"index": 1},
    ],
)
def test_a_call_that_differs_in_anything_is_another_call(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.add(_answer(0))
        assert journal.find(replace(_answer(0).call, **changed)) is None  # type: ignore[arg-type]
        assert journal.find(replace(_answer(0).call, step="renamed")) is not None


def test_a_torn_last_line_is_dropped_and_the_file_goes_on_behind_the_last_whole_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add(_answer(0))
        journal.add(_answer(1))
    whole = path.read_bytes()
    for cut in range(1, 40, 13):
        path.write_bytes(whole[:-cut])
        with Journal(path) as journal:
            assert len(journal) == 1
            journal.add(_answer(1))
        assert [orjson.loads(line)["call"] for line in path.read_bytes().splitlines()] == [
            "documents/0",
            "documents/1",
        ]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add(_answer(0))
        journal.add(_answer(1))
    content = bytearray(path.read_bytes())
    content[3] = 0
    path.write_bytes(bytes(content))
    with pytest.raises(DataFormatError, match="damaged at byte 0"):
        Journal(path)


def test_a_second_process_is_refused_by_the_holders_name(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys; from pathlib import Path; from megatron_msm.llm.journal import Journal\n"
        "with Journal(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ConfigError, match=f"in use by process {other.pid}"):
            Journal(path)
        other.communicate()
    with Journal(path) as journal:
        assert len(journal) == 0


def test_a_call_without_a_price_is_not_free(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.add(_answer(0, cost_usd=None))
        assert journal.total == Spent(1, 10, 5, 0.0, unpriced_calls=1)


def test_adding_costs_the_same_whatever_the_journal_holds(tmp_path: Path) -> None:
    """Bytes written for a call, seen by the operating system, do not grow with the file."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        sizes = []
        for index in range(200):
            before = path.stat().st_size
            journal.add(_answer(1000 + index))
            sizes.append(path.stat().st_size - before)
    assert max(sizes) - min(sizes) <= 8


@pytest.mark.slow
def test_100_000_replies_open_fast(tmp_path: Path) -> None:
    """Under 2 s on an idle machine; ten times as long is a fault."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for index in range(100_000):
            journal.add(_answer(index, text="word " * 600))
    started = time.monotonic()
    with Journal(path) as journal:
        assert len(journal) == 100_000
    seconds = time.monotonic() - started
    assert seconds < 20, f"{path.stat().st_size / 1e6:.0f} MB opened in {seconds:.2f} s"
