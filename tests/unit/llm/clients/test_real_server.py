"""A real server with a real small model: real tokens, and real failures to follow a schema."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import BaseModel

from megatron_msm.llm.call import Call
from megatron_msm.llm.endpoints import OpenAIEndpoint, Price
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.pool import Pool
from megatron_msm.llm.structured import read_structured


class _Colours(BaseModel):
    colours: list[str]


@pytest.fixture
def server(smollm2_folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(smollm2_folder)]
    process = subprocess.Popen([*command, "--device", "cpu", "--port", str(port)])
    url = f"http://localhost:{port}"
    deadline = time.monotonic() + 300
    is_up = False
    while not is_up:
        assert process.poll() is None, "the server ended by itself"
        assert time.monotonic() < deadline, "the server does not start"
        with suppress(OSError):
            is_up = urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
        time.sleep(0.5)
    yield f"{url}/v1"
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_replies_are_counted_read_or_told_apart_and_replayed(
    tmp_path: Path, smollm2_folder: Path, server: str
) -> None:
    endpoint = OpenAIEndpoint(
        model=str(smollm2_folder), base_url=server, price=Price(input=0, output=0), concurrency=2
    )
    calls = [
        Call(
            address=f"colours/{index}",
            step="colours",
            prompt='Name three colours as JSON, such as {"colours": ["red"]}. JSON only.',
            temperature=1.0,
            max_tokens=32 if index else 4,
            schema=_Colours.model_json_schema(),
        )
        for index in range(6)
    ]
    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal) as pool,
    ):
        answers = pool.answer(calls, endpoint="writer")
        assert pool.answer(calls, endpoint="writer") == answers
        assert pool.traffic.paid == 6
    replies = [answer.reply for answer in answers if answer.reply is not None]
    assert len(replies) == 6
    assert replies[0].finish == "length"
    for reply, call in zip(replies, calls, strict=True):
        assert reply.usage.input_tokens > 10
        assert 0 < reply.usage.output_tokens <= call.max_tokens
    read = [read_structured(reply.text, _Colours) for reply in replies[1:]]
    sys.stdout.write("\n".join(f"{r.finish} {r.usage.output_tokens} {r.text!r}" for r in replies))
    assert all((found.content is None) == (found.problem is not None) for found in read)
