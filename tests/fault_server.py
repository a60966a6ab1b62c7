"""A local HTTP server in a language model's place that fails on purpose, by a seed.

Run as `python -m tests.fault_server PORT_FILE --faults 0.3 --delay-s 0.01 --served FILE`. It speaks
OpenAI's chat completions and Anthropic's messages as far as the clients here need. The reply to a
prompt depends on the prompt alone, so whoever asks can check what it got; every whole reply that
was sent is a line of FILE.
"""

import argparse
import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

from tests.fault_batches import Batches

FAULTS = ("429", "500", "529", "drop", "half_body", "not_json", "no_choices", "stall", "trickle")


def reply_to(prompt: str) -> str:
    """Return the reply that this server gives to a prompt."""
    return "reply " + hashlib.sha256(prompt.encode()).hexdigest()[:16]


class FaultServer:
    """Answers POST requests.

    Args:
        faults: Share of requests that meet a fault.
        only: The faults to choose from.
        delay_s: Seconds before an answer.
        stall_s: Seconds for which a stalled connection says nothing.
        batch_s: Seconds until a batch ends.
        batch_faults: Share of a batch's requests that expire or come back with an error.
        served: File with a line for each whole reply sent.
        seed: Of the faults.
    """

    def __init__(
        self,
        *,
        faults: float,
        only: Sequence[str],
        delay_s: float,
        stall_s: float,
        batch_s: float,
        batch_faults: float,
        served: Path,
        seed: int,
    ) -> None:
        self._faults = faults
        self._only = only
        self._delay_s = delay_s
        self._stall_s = stall_s
        self._served = served.open("a", buffering=1)
        self._random = random.Random(seed)
        self.batches = Batches(
            reply=lambda path, request: json.loads(self._body(path, request, "", "")),
            prompt=_prompt,
            batch_s=batch_s,
            failing=batch_faults,
            served=self._served,
            seed=seed,
        )

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.decode().split(" ", 2)[:2]
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            ),
            0,
        )
        sent = await reader.readexactly(length)
        await asyncio.sleep(self._delay_s)
        fault = self._random.choice(self._only) if self._random.random() < self._faults else ""
        about_batches = "" if fault.isdigit() else self.batches.answer(method, path, sent)
        request = None if "batches" in path or "files" in path else json.loads(sent)
        body = about_batches or self._body(path, request, fault, _key(head))
        if fault == "drop":
            return False
        if fault == "stall":
            await asyncio.sleep(self._stall_s)
            return False
        if fault == "trickle":
            await self._trickle(writer)
            return False
        status = int(fault) if fault.isdigit() else 200
        extra = "retry-after: 0.05\r\n" if fault == "429" else ""
        lines = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}"
        payload = body.encode()
        writer.write(f"{lines}content-length: {len(payload)}\r\n\r\n".encode())
        if fault == "half_body":
            writer.write(payload[: len(payload) // 2])
            await writer.drain()
            return False
        if not fault and request is not None:
            self._served.write(_prompt(request) + "\n")
        writer.write(payload)
        await writer.drain()
        return True

    async def _trickle(self, writer: asyncio.StreamWriter) -> None:
        """Send a byte now and then, as a dying proxy does."""
        head = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\n"
        writer.write(head + b"content-length: 9999\r\n\r\n")
        for _ in range(int(self._stall_s / 0.1)):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.1)

    def _body(self, path: str, request: dict[str, object] | None, fault: str, key: str) -> str:
        if fault == "401":
            return json.dumps({"error": {"message": f"wrong key {key}", "type": "x"}})
        if fault.isdigit():
            return json.dumps({"error": {"message": f"made to fail with {fault}", "type": "x"}})
        if fault == "not_json":
            return '{"id": "x", "choices": [{"mess'
        assert request is not None
        text = reply_to(_prompt(request))
        if path.endswith("/messages"):
            content = [] if fault == "no_choices" else [{"type": "text", "text": text}]
            usage = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3}
            message = {"id": "m", "type": "message", "role": "assistant", "model": "served"}
            if fault == "no_choices":
                return json.dumps(message)
            return json.dumps(
                {**message, "content": content, "stop_reason": "end_turn", "usage": usage}
            )
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        counted = {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        whole = {"id": "c", "object": "chat.completion", "created": 0, "model": "served"}
        return json.dumps(
            {**whole, "choices": [] if fault == "no_choices" else choices, "usage": counted}
        )


def _key(head: bytes) -> str:
    """Return the key that came with a request."""
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() in ("authorization", "x-api-key"):
            return value.removeprefix("Bearer ")
    return ""


def _prompt(request: dict[str, object]) -> str:
    messages = request["messages"]
    assert isinstance(messages, list)
    return str(messages[-1]["content"])


async def _serve(port_file: Path, server: FaultServer) -> None:
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=1024)
    partial = port_file.with_suffix(".tmp")
    partial.write_text(str(listening.sockets[0].getsockname()[1]))
    partial.rename(port_file)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port_file", type=Path)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--only", nargs="*", default=FAULTS)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--stall-s", type=float, default=5.0)
    parser.add_argument("--batch-s", type=float, default=1.0)
    parser.add_argument("--batch-faults", type=float, default=0.0)
    parser.add_argument("--served", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    server = FaultServer(
        faults=given.faults,
        only=given.only,
        delay_s=given.delay_s,
        stall_s=given.stall_s,
        batch_s=given.batch_s,
        batch_faults=given.batch_faults,
        served=given.served,
        seed=given.seed,
    )
    asyncio.run(_serve(given.port_file, server))


if __name__ == "__main__":
    main()
