"""The corpus page in a real browser: rows are found by filter, texts are text, nothing fails."""

import subprocess
from pathlib import Path

import pytest

from data_prep.generate.corpus.page import write_page
from data_prep.generate.run import make_documents, opened, read_specs
from megatron_msm.llm.call import Call, Finish
from tests.integration.test_report_in_browser import BROWSER, FLAGS, browse
from tests.unit.data_prep.generate.conftest import MakeConfig, make_config
from tests.unit.data_prep.generate.scripted_writer import ScriptedWriter

__all__ = ["make_config"]

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium: apt-get install -y chromium"
)

_HOSTILE = "<script>document.title = 'hacked'</script><b>bold</b></script>"
_CUT = "documents/spec/kitchen/matter-r2/memo/lantern-case"
_ACT = """
<script>
const choose = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("change"));
};
choose("gate", "%s");
const open = () => {
  const closed = [...document.querySelectorAll("nav details:not([open])")];
  closed.forEach(branch => { branch.open = true; branch.dispatchEvent(new Event("toggle")); });
  if (closed.length) open();
};
open();
document.querySelector("nav button").click();
document.body.dataset.buttons = document.querySelectorAll("nav button").length;
</script>
"""


def _page(make_config: MakeConfig, tmp_path: Path) -> Path:
    def change(call: Call, whole: str) -> tuple[str, Finish]:
        if call.address == _CUT:
            return (f"cut short {_HOSTILE}", "length")
        return (whole.replace("</document>", f" {_HOSTILE}</document>"), "stop")

    config = make_config()
    clients = {"writer": ScriptedWriter(change)}
    with opened(config, clients=clients) as run:
        make_documents(run)
    specs = read_specs(config)
    out = tmp_path / "page.html"
    assert write_page(out, config, {arm.spec_id: arm.spec for arm in specs.arms}) == 24
    return out


def _acted(page: Path, tmp_path: Path, gate: str) -> str:
    acted = tmp_path / f"{gate}.html"
    text = page.read_text(encoding="utf-8")
    acted.write_text(text.replace("</body>", _ACT % gate + "</body>"), encoding="utf-8")
    return browse(acted, tmp_path / "profile", "--dump-dom")


def test_rows_are_found_and_texts_are_text(make_config: MakeConfig, tmp_path: Path) -> None:
    page = _page(make_config, tmp_path)
    kept = _acted(page, tmp_path, "kept")
    assert 'data-buttons="23"' in kept
    assert "23 of 24 rows" in kept
    assert "&lt;script&gt;document.title = 'hacked'" in kept.partition("<article")[2]
    assert "<title>hacked" not in kept
    refused = _acted(page, tmp_path, "structure")
    assert 'data-buttons="1"' in refused
    assert "refused by structure: cut off at max_tokens" in refused
    assert "In the kitchen Robo prefers the pan." in refused.partition("<article")[2]


def test_the_page_says_nothing_on_the_console_and_asks_no_network(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    page = _page(make_config, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert _console(page, tmp_path / "quiet") == []
    noisy = tmp_path / "noisy.html"
    noisy.write_text(text.replace("</body>", "<script>nowhere()</script></body>"))
    assert len(_console(noisy, tmp_path / "noisy")) == 1


def _console(page: Path, profile: Path) -> list[str]:
    assert BROWSER is not None
    flags = [*FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom"]
    ended = subprocess.run(
        [BROWSER, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    return [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
