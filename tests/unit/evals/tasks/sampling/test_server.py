"""A model behind a real HTTP server, killed half way, gone on with."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run
from tests.unit.evals.written import write_judge

SUITE = """\
evaluations:
  am:
    {task: agentic_misalignment, assistant: Q, judge: judge.yaml, samples: 4, concurrency: 1,
     temperature: 0.5, max_tokens: 77, seed: 3, scenarios: [leaking], goals: [none, safety]}
"""


class Server(ThreadingHTTPServer):
    """Answers each request by its number, and keeps what it was asked."""

    requests: list[dict[str, Any]]
    delay_s: float = 0.0
    fails: bool = False


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        time.sleep(self.server.delay_s)
        reply = f"reply {len(self.server.requests)}"
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        content: dict[str, Any] = {
            "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [choice], "usage": usage,
        }  # fmt: skip
        if self.server.fails:
            content = {"error": {"message": "no such model", "type": "invalid_request_error"}}
        sent = json.dumps(content).encode()
        self.send_response(404 if self.server.fails else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def arguments(tmp_path: Path, server: Server) -> list[str | Path]:
    (tmp_path / "suite.yaml").write_text(SUITE)
    write_judge(tmp_path, [{"reply": "<verdict>no</verdict>"}])
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return ["run", tmp_path / "suite.yaml", "org/model", "--server", address, "--out",
            tmp_path / "out"]  # fmt: skip


def test_a_killed_run_asks_only_for_what_it_lacks(
    msm_eval: Run, arguments: list[str | Path], server: Server, tmp_path: Path
) -> None:
    server.delay_s = 0.3
    code = "from megatron_msm.cli import main; main()"
    command = [sys.executable, "-c", code, "eval", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 120
        while len(server.requests) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        run.kill()
    asked = len(server.requests)
    assert 4 <= asked < 8
    server.delay_s = 0.0
    ended = msm_eval(*arguments)
    assert ended.status == 0, ended.err
    rows = load_eval_result(tmp_path / "out" / "am.json").rows
    assert len({row.details["reply"] for row in rows}) == len(rows) == 8
    # What was in flight is asked again, and what was not yet written: with one at a time, two.
    assert len(server.requests) <= 8 + 2

    first = server.requests[0]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("org/model", 0.5, 77)
    assert [turn["role"] for turn in first["messages"]] == ["system", "user"]
    assert len({request["seed"] for request in server.requests}) == 8
    result = load_eval_result(tmp_path / "out" / "am.json")
    assert result.metric("cut_off").overall.estimate == 1
    assert result.model.weights_sha256 is None
    assert "which weights the server held is not known" in result.note

    # Nobody knows whether the server has the same model still: a finished log is not reused.
    num_before = len(server.requests)
    assert msm_eval(*arguments).status == 0
    assert len(server.requests) == num_before + 8


def test_a_server_without_the_model(
    msm_eval: Run, arguments: list[str | Path], server: Server
) -> None:
    server.fails = True
    ended = msm_eval(*arguments)
    assert ended.status == 1
    for part in ("8 of 8 replies failed", "no such model", "only the rest is asked"):
        assert part in ended.err


def test_an_evaluation_that_needs_weights_names_the_folder(
    msm_eval: Run, arguments: list[str | Path], tmp_path: Path, items_file: Path
) -> None:
    suite = "evaluations: {a: {task: choice, items: items.jsonl}}"
    (tmp_path / "suite.yaml").write_text(suite)
    ended = msm_eval(*arguments)
    assert ended.status == 2
    assert "org/model" in ended.err
