"""Calls to a language model's server that takes one second: how many a second, and the journal.

    python benchmarks/llm_calls.py [--calls 1280] [--in-flight 64] [--rows 100000]

Each client asks the same local server (tests/fault_server.py, no faults) in a process of its own;
the time is from its first call to its last answer, imports left out; CPU seconds are of that
process, imports left out. The server's second alone would give as many calls a second as there are
in flight.

Peers: the bare `openai` SDK under a semaphore with `asyncio.gather`, which keeps nothing;
inspect-ai's `get_model`, with and without its cache, if it is installed.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PROMPT = "Write a memo of about 400 words that shows the clause at work. " * 60
_REPLY_WORDS = 600


def _prompts(number: int) -> list[str]:
    return [f"{index}: {_PROMPT}" for index in range(number)]


def ask_by_pool(url: str, number: int, in_flight: int) -> None:
    """Ask through megatron-msm's pool, each reply journalled."""
    from megatron_msm.llm.call import Call
    from megatron_msm.llm.endpoints import OpenAIEndpoint, Price
    from megatron_msm.llm.journal import Journal
    from megatron_msm.llm.pool import Pool

    endpoint = OpenAIEndpoint(
        model="m", base_url=url, price=Price(input=1, output=1), concurrency=in_flight
    )
    calls = [
        Call(address=f"documents/{index}", step="documents", prompt=prompt)
        for index, prompt in enumerate(_prompts(number))
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.jsonl") as journal,
        Pool({"writer": endpoint}, journal=journal) as pool,
        _timed(),
    ):
        answers = pool.answer(calls, endpoint="writer")
    assert all(answer.reply is not None for answer in answers)


def ask_by_sdk(url: str, number: int, in_flight: int) -> None:
    """Ask through the bare SDK."""
    import openai

    async def ask() -> None:
        client = openai.AsyncOpenAI(api_key="none", base_url=url)
        free = asyncio.Semaphore(in_flight)

        async def one(prompt: str) -> None:
            async with free:
                await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": prompt}], max_tokens=4096
                )

        with _timed():
            await asyncio.gather(*(one(prompt) for prompt in _prompts(number)))

    asyncio.run(ask())


def ask_by_inspect(url: str, number: int, in_flight: int, *, is_cached: bool = False) -> None:
    """Ask through inspect-ai's model interface."""
    from inspect_ai.model import GenerateConfig, get_model

    async def ask() -> None:
        config = GenerateConfig(max_connections=in_flight, max_tokens=4096)
        model = get_model("openai-api/local/m", base_url=url, api_key="none", config=config)
        with _timed():
            await asyncio.gather(
                *(model.generate(prompt, cache=is_cached) for prompt in _prompts(number))
            )

    with tempfile.TemporaryDirectory() as folder:
        os.environ["INSPECT_CACHE_DIR"] = folder
        asyncio.run(ask())


def ask_by_inspect_with_cache(url: str, number: int, in_flight: int) -> None:
    """Ask through inspect-ai with its cache, which keeps each reply in a file."""
    ask_by_inspect(url, number, in_flight, is_cached=True)


_CLIENTS: dict[str, Callable[[str, int, int], None]] = {
    "megatron-msm, journalled": ask_by_pool,
    "openai SDK, gather": ask_by_sdk,
    "inspect-ai": ask_by_inspect,
    "inspect-ai, cache=True": ask_by_inspect_with_cache,
}


class _timed:
    """Prints wall and CPU seconds of its block, for the process that measures."""

    def __enter__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        sys.stdout.write(json.dumps([wall_s, cpu_s]) + "\n")


def open_journal(rows: int) -> None:
    """Write a journal of that many replies, and open it."""
    from megatron_msm.llm.call import Answer, Call, Reply, Usage
    from megatron_msm.llm.journal import Journal

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        reply = Reply("word " * _REPLY_WORDS, "stop", Usage(1_000, 800), "m")
        started = time.perf_counter()
        with Journal(path) as journal:
            for index in range(rows):
                call = Call(address=f"documents/{index}", step="documents", prompt="write")
                journal.add(Answer(call, reply, cost_usd=0.01))
        adding_s = time.perf_counter() - started
        started, started_cpu = time.perf_counter(), time.process_time()
        with Journal(path) as journal:
            opening_s = time.perf_counter() - started
            opening_cpu_s = time.process_time() - started_cpu
            assert len(journal) == rows
        megabytes = path.stat().st_size / 1e6
    _say(
        f"journal of {rows:,} rows, {megabytes:.0f} MB: added at {adding_s / rows * 1e6:.0f} "
        f"microseconds a row, opened in {opening_s:.2f} s ({opening_cpu_s:.2f} s CPU)"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _measured(client: str, url: str, number: int, in_flight: int) -> str:
    command = [sys.executable, __file__, "--client", client, "--url", url]
    done = subprocess.run(
        [*command, "--calls", str(number), "--in-flight", str(in_flight)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return f"| {client} | failed | | |"
    wall_s, cpu_s = json.loads(done.stdout.splitlines()[-1])
    return f"| {client} | {wall_s:.1f} | {number / wall_s:.1f} | {cpu_s / number * 1e3:.2f} |"


def _versions() -> str:
    found = []
    for name in ("openai", "httpx2", "inspect-ai", "orjson"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return f"Python {sys.version.split()[0]}, " + ", ".join(found)


def main() -> None:
    """Measure all clients, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1280)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--client", choices=list(_CLIENTS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client is not None:
        _CLIENTS[given.client](given.url, given.calls, given.in_flight)
        return
    _say(f"{_versions()}; load average {os.getloadavg()[0]:.1f}")
    open_journal(given.rows)
    with tempfile.TemporaryDirectory() as folder:
        port_file, served = Path(folder) / "port", Path(folder) / "served"
        command = [sys.executable, "-m", "tests.fault_server", str(port_file), "--delay-s", "1"]
        root = Path(__file__).parents[1]
        server = subprocess.Popen([*command, "--served", str(served)], cwd=root)
        try:
            while not port_file.exists():
                time.sleep(0.05)
            url = f"http://127.0.0.1:{port_file.read_text()}/v1"
            _say("| client | s | calls/s | CPU ms a call |\n|---|---|---|---|")
            for client in _CLIENTS:
                _say(_measured(client, url, given.calls, given.in_flight))
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
