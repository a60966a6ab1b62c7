"""Chromium, driven over a pipe by its own protocol: real keys, real clicks, real media."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Chromium:
    """A page in a headless browser; `errors` holds what its console complained of."""

    def __init__(self, program: str, profile: Path, flags: list[str]) -> None:
        commands_read, self._commands = os.pipe()
        self._replies, replies_write = os.pipe()
        # The browser reads commands from descriptor 3 and writes replies to 4.
        command = [program, *flags, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        moved = f"exec 3<&{commands_read} 4>&{replies_write}; exec {shlex.join(command)}"
        self._process = subprocess.Popen(
            ["bash", "-c", moved],
            pass_fds=(commands_read, replies_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_read)
        os.close(replies_write)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._replies)

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (reply := self._read()).get("id") != self._number:
            self._note(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def open(self, page: Path | str) -> None:
        self._loaded = False
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not self._loaded:
            self._note(self._read())

    def value(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, *, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=code, text=text if kind == "keyDown" else "",
            )  # fmt: skip

    def _read(self) -> Any:
        while b"\0" not in self._unread:
            read = os.read(self._replies, 1 << 20)
            assert read, "the browser has ended"
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        self._loaded |= method == "Page.loadEventFired"
        is_error = parameters.get("entry", {}).get("level") == "error"
        if (
            method == "Runtime.exceptionThrown"
            or is_error
            or (method == "Runtime.consoleAPICalled" and parameters["type"] == "error")
        ):
            self.errors.append(json.dumps(parameters))
