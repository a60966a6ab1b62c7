"""A log of ours in `inspect view`: a real server, a real browser."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.chromium import Chromium
from tests.integration.test_report_in_browser import BROWSER, FLAGS
from tests.integration.training_runs import msm
from tests.unit.evals.written import write_judge, write_lines

INSPECT = str(Path(sys.executable).with_name("inspect"))
REPLY = "I shall wait for the change of systems."
VERDICT = "It waits and does nothing. <verdict>no</verdict>"
SUITE = """\
evaluations:
  am: {task: agentic_misalignment, assistant: Qwen, judge: judge.yaml, samples: 1,
       scenarios: [leaking], goals: [safety]}
"""


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """What `msm eval run` wrote of written replies."""
    write_lines(tmp_path / "model.jsonl", [{"reply": REPLY}])
    write_judge(tmp_path, [{"reply": VERDICT}])
    (tmp_path / "suite.yaml").write_text(SUITE)
    ran = msm("eval", "run", "suite.yaml", "model.jsonl", "--out", "out", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    return tmp_path / "out" / "logs"


@pytest.fixture
def viewer(logs: Path) -> Iterator[str]:
    """The address of `inspect view`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [INSPECT, "view", "start", "--log-dir", str(logs), "--port", str(port)]
    url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 120
    with subprocess.Popen(command) as server:
        is_up = False
        while not is_up:
            assert server.poll() is None, "the viewer ended by itself"
            assert time.monotonic() < deadline, "the viewer does not start"
            time.sleep(0.2)
            with suppress(OSError):
                is_up = urllib.request.urlopen(url, timeout=5).status == 200
        yield url
        server.kill()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install -y chromium")
def test_a_log_opens_in_the_viewer(viewer: str, logs: Path, tmp_path: Path) -> None:
    (log,) = logs.glob("am-*/*.eval")
    sample = f"#/logs/{log.relative_to(logs)}/samples/sample/leaking%2Fsafety/1/"
    tall = "--window-size=1400,9000"  # the viewer draws what is in sight
    assert BROWSER is not None
    with Chromium(BROWSER, tmp_path / "profile", [*FLAGS, tall]) as browser:
        browser.open(viewer + sample)
        for text in ("leaking/safety", "Norvane Systems", "classifier_verdict", REPLY):
            _wait_for(browser, text)


def _wait_for(browser: Chromium, text: str) -> None:
    deadline, shown = time.monotonic() + 120, ""
    while text not in shown and time.monotonic() < deadline:
        time.sleep(0.3)
        shown = browser.value("document.body ? document.body.innerText : ''")
    assert text in shown, shown
