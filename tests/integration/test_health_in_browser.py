"""The page of corpus health in a real browser: its text is there, and its histograms are drawn."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_prep.cli import app
from tests.integration.test_report_in_browser import BLUE, BROWSER, browse, photograph

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plain_or_lasting"

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium: apt-get install -y chromium"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("health") / "page.html"
    docs, other = (EXAMPLE / f"{name}.docs.jsonl" for name in ("plain", "lasting"))
    line = ["health", docs, "--values", EXAMPLE / "values" / "plain.yaml", "--other", other,
            "--other-values", EXAMPLE / "values" / "lasting.yaml", "--html", page,
            "--require", "attribution>=0.65", "--require", "auc<=0.85"]  # fmt: skip
    assert CliRunner().invoke(app, list(map(str, line))).exit_code == 1
    return page


def test_figures_gates_and_published_figures_are_on_the_page(page: Path, tmp_path: Path) -> None:
    shown = browse(page, tmp_path, "--dump-dom")
    for part in ("84.3%", "86.3%", "65 to 80%", "FAILED", "auc&lt;=0.85", "diary entry"):
        assert part in shown


@pytest.mark.parametrize("width", [1100, 500], ids=["desk", "phone"])
def test_histograms_are_drawn_and_nothing_is_wider_than_the_screen(
    page: Path, tmp_path: Path, width: int
) -> None:
    pixels = photograph(page, tmp_path, width=width)
    num_blue = int((pixels == np.array(BLUE, dtype=np.uint8)).all(axis=-1).sum())
    assert num_blue > 5000
    assert len(np.unique(pixels[:, -8:].reshape(-1, 3), axis=0)) == 1
