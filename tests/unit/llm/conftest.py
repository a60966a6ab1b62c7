import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Served(NamedTuple):
    url: str
    log: Path

    def prompts(self) -> list[str]:
        return self.log.read_text().splitlines()


StartServer = Callable[..., Served]


@pytest.fixture
def fault_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start a real HTTP server that fails on purpose: see tests/fault_server.py."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> Served:
        port_file, log = tmp_path / f"port{len(running)}", tmp_path / f"served{len(running)}"
        command = [sys.executable, "-m", "tests.fault_server", str(port_file), *options]
        running.append(subprocess.Popen([*command, "--served", str(log)]))
        deadline = time.monotonic() + 30
        while not port_file.exists():
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        return Served(f"http://127.0.0.1:{port_file.read_text()}/v1", log)

    yield start
    for process in running:
        process.kill()
        process.wait()
