"""The batch part of tests/fault_server.py: OpenAI's files and batches, Anthropic's message batches.

A batch ends some seconds after it was made, its results come in reverse order, and by chance a
request of it is left to expire, comes back with an error that may pass, or is refused. Every reply
of a batch is written to the server's log when the batch is made: from then on it is paid.
"""

import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

_OUTCOMES = ("expired", "errored")


class Batches:
    """Answers requests about batches.

    Args:
        reply: The body of a reply to a request, by path and request.
        prompt: The prompt of a request.
        batch_s: Seconds until a batch ends.
        failing: Share of requests that expire or come back with an error.
        served: The server's log.
        seed: Of the failures.
    """

    def __init__(
        self,
        *,
        reply: Callable[[str, dict[str, Any]], Any],
        prompt: Callable[[dict[str, Any]], str],
        batch_s: float,
        failing: float,
        served: TextIO,
        seed: int,
    ) -> None:
        self._reply = reply
        self._prompt = prompt
        self._batch_s = batch_s
        self._failing = failing
        self._served = served
        self._random = random.Random(seed)
        self._files: dict[str, str] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, body: bytes) -> str | None:
        """Return the answer to a request, None if it is not about batches."""
        path = path.split("?")[0]
        parts = path.strip("/").split("/")[1:]
        if parts[0] == "files":
            return self._file(method, parts, body)
        if parts[0] == "batches":
            if method == "POST":
                given = json.loads(body)["input_file_id"]
                lines = [json.loads(line) for line in self._files[given].splitlines()]
                asked = [(line["custom_id"], line["body"]) for line in lines]
                batch = self._new(asked, "/v1/chat/completions", input_file_id=given)
                return json.dumps(self._openai(batch))
            if len(parts) == 1:
                return self._list([self._openai(each) for each in self._newest_first()])
            return json.dumps(self._openai(self._batches[parts[1]]))
        if parts[:2] == ["messages", "batches"]:
            if method == "POST":
                asked = [
                    (each["custom_id"], each["params"]) for each in json.loads(body)["requests"]
                ]
                return json.dumps(self._anthropic(self._new(asked, "/v1/messages")))
            if len(parts) == 2:
                return self._list([self._anthropic(each) for each in self._newest_first()])
            batch = self._batches[parts[2]]
            if parts[-1] == "results":
                return self._anthropic_results(batch)
            return json.dumps(self._anthropic(batch))
        return None

    def _file(self, method: str, parts: list[str], body: bytes) -> str:
        if method == "POST":
            lines = [line for line in body.decode().splitlines() if line.startswith("{")]
            return json.dumps({"id": self._keep("\n".join(lines)), "object": "file"})
        return self._files[parts[1]]

    def _keep(self, content: str) -> str:
        name = f"file-{len(self._files)}"
        self._files[name] = content
        return name

    def _new(self, asked: list[tuple[str, Any]], path: str, **more: str) -> dict[str, Any]:
        outcomes = []
        for key, request in asked:
            prompt = self._prompt(request)
            outcome = "refused" if "refuse this" in prompt else "succeeded"
            if self._random.random() < self._failing:
                outcome = self._random.choice(_OUTCOMES)
            if outcome == "succeeded":
                self._served.write(prompt + "\n")
            outcomes.append((key, outcome, self._reply(path, request)))
        batch = {
            "id": f"batch-{len(self._batches)}",
            "unix_time_s": time.time(),
            "outcomes": outcomes[::-1],
            **more,
        }
        self._batches[str(batch["id"])] = batch
        return batch

    def _newest_first(self) -> list[dict[str, Any]]:
        return list(self._batches.values())[::-1]

    def _list(self, data: list[dict[str, Any]]) -> str:
        return json.dumps({"object": "list", "data": data, "has_more": False})

    def _is_ended(self, batch: dict[str, Any]) -> bool:
        return bool(time.time() - batch["unix_time_s"] > self._batch_s)

    def _openai(self, batch: dict[str, Any]) -> dict[str, Any]:
        shown = {
            "id": batch["id"],
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": int(batch["unix_time_s"]),
            "input_file_id": batch["input_file_id"],
            "status": "in_progress",
        }
        if not self._is_ended(batch):
            return shown
        if "output_file_id" not in batch:
            lines = [
                (outcome, json.dumps(self._line(*one)))
                for one in batch["outcomes"]
                for outcome in [one[1]]
            ]
            good = [line for outcome, line in lines if outcome == "succeeded"]
            bad = [line for outcome, line in lines if outcome != "succeeded"]
            batch["output_file_id"] = self._keep("\n".join(good)) if good else None
            batch["error_file_id"] = self._keep("\n".join(bad)) if bad else None
        is_expired = any(outcome == "expired" for _, outcome, _ in batch["outcomes"])
        files = {name: batch[name] for name in ("output_file_id", "error_file_id")}
        return {**shown, **files, "status": "expired" if is_expired else "completed"}

    def _line(self, key: str, outcome: str, reply: Any) -> dict[str, Any]:
        if outcome == "expired":
            error = {"code": "batch_expired", "message": "it was not its turn in time"}
            return {"custom_id": key, "response": None, "error": error}
        status = {"succeeded": 200, "errored": 500, "refused": 400}[outcome]
        body = reply if status == 200 else {"error": {"message": f"made to be {outcome}"}}
        return {"custom_id": key, "response": {"status_code": status, "body": body}, "error": None}

    def _anthropic(self, batch: dict[str, Any]) -> dict[str, Any]:
        is_ended, names = self._is_ended(batch), [outcome for _, outcome, _ in batch["outcomes"]]
        counts = {
            "processing": 0 if is_ended else len(names),
            "succeeded": names.count("succeeded") if is_ended else 0,
            "errored": names.count("errored") + names.count("refused") if is_ended else 0,
            "expired": names.count("expired") if is_ended else 0,
            "canceled": 0,
        }
        made = datetime.fromtimestamp(batch["unix_time_s"], UTC).isoformat()
        return {
            "id": batch["id"],
            "type": "message_batch",
            "processing_status": "ended" if is_ended else "in_progress",
            "request_counts": counts,
            "created_at": made,
            "expires_at": made,
            "results_url": f"/v1/messages/batches/{batch['id']}/results" if is_ended else None,
        }

    def _anthropic_results(self, batch: dict[str, Any]) -> str:
        lines = []
        for key, outcome, reply in batch["outcomes"]:
            result: dict[str, Any] = {"type": outcome}
            if outcome == "succeeded":
                result["message"] = reply
            elif outcome in ("errored", "refused"):
                kind = "api_error" if outcome == "errored" else "invalid_request_error"
                fault = {"type": kind, "message": f"made to be {outcome}"}
                result = {"type": "errored", "error": {"type": "error", "error": fault}}
            lines.append(json.dumps({"custom_id": key, "result": result}))
        return "\n".join(lines) + "\n"
