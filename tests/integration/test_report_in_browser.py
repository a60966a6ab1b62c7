"""The report in a real browser: the text is on the page and the pictures are drawn."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from evals.report.inputs import LossCurve, StageFact
from evals.report.page import render_report
from tests.unit.evals.choice.results import result

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium: apt-get install -y chromium"
)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
BLUE = (0x1F, 0x5F, 0xBF)
"""`--accent` of the light page: the curves and whiskers."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    curve = LossCurve("midtrain", tuple(range(1, 61)), tuple(3.0 - 0.02 * n for n in range(60)))
    html = render_report(
        [
            result("base", {"near": [0.0, 0.1, -0.1], "far": [0.1, 0.3, -0.3]}),
            result("after midtraining", {"near": [1.0, 1.2, 0.8], "far": [0.1, 0.1, -0.2]}),
        ],
        curves=[curve],
        facts=[StageFact(stage="prep docs", made="700 documents", where="docs.bin", seconds=4.2)],
        title="Browser test",
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def browse(page: Path, profile: Path, *flags: str) -> str:
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def photograph(page: Path, folder: Path, *, width: int, flags: tuple[str, ...] = ()) -> Any:
    """Return the page as `[height, width, 3]` uint8."""
    picture = folder / "page.png"
    size = f"--window-size={width},2600"
    browse(page, folder / "profile", size, f"--screenshot={picture}", *flags)
    pixels = matplotlib.image.imread(picture)
    return np.rint(pixels[:, :, :3] * 255).astype(np.uint8)


def test_the_text_is_on_the_page(report: Path, tmp_path: Path) -> None:
    page = browse(report, tmp_path, "--dump-dom")
    for part in ("Browser test", "ONE SEED", "after midtraining", "moved toward", "optimizer step"):
        assert part in page


@pytest.mark.parametrize("width", [1100, 500], ids=["desk", "phone"])
def test_the_pictures_are_drawn(report: Path, tmp_path: Path, width: int) -> None:
    pixels = photograph(report, tmp_path, width=width)
    assert pixels.shape[1] == width
    num_colours = len(np.unique(pixels.reshape(-1, 3), axis=0))
    assert num_colours > 50
    num_blue = int((pixels == np.array(BLUE, dtype=np.uint8)).all(axis=-1).sum())
    assert num_blue > 2000


def test_a_dark_page_is_dark(report: Path, tmp_path: Path) -> None:
    dark = photograph(
        report, tmp_path, width=900, flags=("--blink-settings=preferredColorScheme=0",)
    )
    assert dark[5, 5].max() < 60
    assert dark.max() > 200


def test_nothing_is_wider_than_a_phone(report: Path, tmp_path: Path) -> None:
    """Only tables may scroll sideways: the margins of a narrow page stay empty."""
    pixels = photograph(report, tmp_path, width=500)
    assert len(np.unique(pixels[:, -8:].reshape(-1, 3), axis=0)) == 1
