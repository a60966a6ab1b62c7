"""A server of chat completions that counts as it is told: `small_server.py MODEL PORT TOKENS`.

With TOKENS `ends` it complains and ends; with `deaf` it never gets ready and refuses to end.
"""

import json
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL, PORT, TOKENS = sys.argv[1:4]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] != MODEL:
            self._send(404, {"error": {"message": f"no model {body['model']}"}})
            return
        message = {"role": "assistant", "content": "I shall wait."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": int(TOKENS), "completion_tokens": 3, "total_tokens": 9}
        self._send(
            200,
            {
                "id": "1", "object": "chat.completion", "created": 1, "model": MODEL,
                "choices": [choice], "usage": usage,
            },
        )  # fmt: skip

    def _send(self, status: int, content: object) -> None:
        sent = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


def main() -> None:
    child = subprocess.Popen(["sleep", "600"])
    sys.stderr.write(f"child {child.pid} of {MODEL}\n")
    if TOKENS == "ends":
        sys.exit("the card has no memory left")
    if TOKENS == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler).serve_forever()


if __name__ == "__main__":
    main()
