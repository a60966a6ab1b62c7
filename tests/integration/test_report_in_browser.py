"""The report in a real browser: the text is on the page and the pictures are drawn."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from evals.report.inputs import LossCurve, StageFact
from evals.report.page import render_report
from tests.integration.chromium import Chromium
from tests.unit.evals.report.study import write_study
from tests.unit.evals.tasks.choice.results import result

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
    size = f"--window-size={width},4400"
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


TAB, ENTER = ("Tab", 9, ""), ("Enter", 13, "\r")


@pytest.fixture(scope="module")
def transcripts_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms, three groups, thirty replies each."""
    results = []
    for arm in ("base", "after midtraining"):
        one = result(arm, {group: [float(n % 2) for n in range(10)] for group in "abc"})
        rows = [
            row.model_copy(update={"details": {"reply": f"{arm} says {row.id} <b>&amp;</b>"}})
            for row in one.rows
        ]
        results.append(one.model_copy(update={"rows": tuple(rows)}))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(results, title="Transcripts"), encoding="utf-8")
    return path


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    assert BROWSER is not None
    with Chromium(BROWSER, tmp_path / "profile", FLAGS) as opened:
        yield opened


def choose(browser: Chromium, field: str, value: str) -> None:
    browser.value(
        f"(() => {{ const one = document.getElementById('transcripts-filters').elements['{field}'];"
        f" one.value = {value!r}; one.dispatchEvent(new Event('input', {{bubbles: true}})); }})()"
    )


def count(browser: Chromium) -> str:
    return str(browser.value("document.getElementById('transcripts-count').textContent"))


def test_transcripts_are_filtered_and_read(browser: Chromium, transcripts_page: Path) -> None:
    browser.open(transcripts_page)
    assert count(browser) == "60 of 60 transcripts; 20 listed"
    choose(browser, "arm", "after midtraining")
    assert count(browser).startswith("30 of 60")
    choose(browser, "group", "b")
    assert count(browser).startswith("10 of 60")
    choose(browser, "verdict", "mean log-odds: above 0")
    assert count(browser).startswith("5 of 60")
    choose(browser, "contains", "SAYS B-3 <B>&AMP;")
    assert count(browser) == "1 of 60 transcripts; 1 listed"
    browser.value("document.querySelector('.transcript summary').click()")
    browser.value("new Promise((done) => setTimeout(done, 100))")
    shown = "document.querySelector('.transcript pre').textContent"
    assert browser.value(shown) == "after midtraining says b-3 <b>&amp;</b>"
    assert browser.errors == []


def test_items_are_browsed_with_both_orders_and_every_model(
    browser: Chromium, report: Path
) -> None:
    browser.open(report)
    counted = "document.getElementById('items-count').textContent"
    assert browser.value(counted) == "6 of 6 items; 6 listed"
    browser.value("document.querySelector('#items-list summary').click()")
    browser.value("new Promise((done) => setTimeout(done, 100))")
    table = "[...document.querySelectorAll('#items-list tr')].map((row) => row.innerText)"
    head, base, after = browser.value(table)
    assert head.split("\t")[1:] == [
        "mean log-odds", "homemade listed first", "affordability listed first"
    ]  # fmt: skip
    assert base.split("\t") == ["base", "+0.000", "+0.000", "+0.000"]
    assert after.split("\t") == ["after midtraining", "+1.000", "+1.000", "+1.000"]
    asked = "document.querySelector('#items-list pre').textContent"
    assert browser.value(asked) == "Which chair?"
    assert browser.errors == []


def test_everything_is_reached_and_worked_by_keys(
    browser: Chromium, transcripts_page: Path
) -> None:
    browser.open(transcripts_page)
    reached = []
    for _ in range(60):
        browser.press(TAB[0], code=TAB[1])
        focused = "document.activeElement"
        reached.append(browser.value(f"{focused}.name || {focused}.id || {focused}.className"))
        is_summary = browser.value(f"{focused}.tagName == 'SUMMARY'")
        if is_summary and "opened" not in reached:
            browser.press(ENTER[0], code=ENTER[1], text=ENTER[2])
            assert browser.value(f"{focused}.parentElement.open")
            reached.append("opened")
        if reached[-1] == "transcripts-more":
            break
    for name in ("evaluation", "arm", "group", "verdict", "contains", "opened", "wide heat"):
        assert name in reached
    assert reached[-1] == "transcripts-more"
    browser.press(ENTER[0], code=ENTER[1], text=ENTER[2])
    assert count(browser) == "60 of 60 transcripts; 40 listed"
    assert browser.value("document.activeElement.tagName") == "SUMMARY"
    assert browser.errors == []


def test_every_picture_is_there_in_light_dark_and_print(
    browser: Chromium, transcripts_page: Path
) -> None:
    browser.open(transcripts_page)
    sizes = "[...document.querySelectorAll('svg')].map((one) => one.getBoundingClientRect().width)"
    assert len(browser.value(sizes)) == 9  # levels and changes of four, and the heat map
    assert min(browser.value(sizes)) > 100
    colour = "getComputedStyle(document.body).color"
    colours = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.call("Emulation.setEmulatedMedia", media="screen", features=features)
        colours[scheme] = browser.value(colour)
    assert colours == {"light": "rgb(29, 33, 41)", "dark": "rgb(232, 233, 236)"}
    browser.call("Emulation.setEmulatedMedia", media="print", features=features)
    assert browser.value(colour) == colours["light"]
    filters = "getComputedStyle(document.getElementById('transcripts-filters')).display"
    assert browser.value(filters) == "none"


def test_a_whole_study_is_drawn_and_nothing_is_wider_than_a_phone(
    browser: Chromium, tmp_path: Path
) -> None:
    """Nine arms, three seeds, tiers, doses, losses, a figure of the paper, items and replies."""
    page = write_study(tmp_path / "study", num_items=4, num_samples=2)
    size = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.open(page)
    assert browser.value("document.documentElement.scrollWidth") <= 375
    widths = "[...document.querySelectorAll('figure svg')].map((one) => one.clientWidth)"
    drawn = browser.value(widths)
    # values: 3 kinds of pictures of 5 groups, and a dose; am: 3 kinds of all items, and a dose.
    assert len(drawn) == 3 * 5 + 1 + 3 + 1 + 1
    assert min(drawn) > 250
    headings = browser.value("[...document.querySelectorAll('h2')].map((one) => one.innerText)")
    for heading in ("Training loss", "Training", "Beside the paper", "Items", "Transcripts"):
        assert heading in headings
    assert browser.errors == []


@pytest.mark.slow
def test_forty_arms_and_twenty_thousand_transcripts_open_and_are_filtered_at_once(
    browser: Chromium, tmp_path: Path
) -> None:
    text = "word and word, and what the word was for; " * 50
    arms = []
    for number in range(40):
        one = result(
            f"m+msm(s)[steps={number}]", {f"group {n}": [0.1, -0.1] * 10 for n in range(25)}
        )
        rows = [
            row.model_copy(update={"details": {"reply": f"{row.id} {text}"}}) for row in one.rows
        ]
        arms.append(one.model_copy(update={"rows": tuple(rows)}))
    page = tmp_path / "report.html"
    page.write_text(render_report(arms, title="Many"), encoding="utf-8")
    started = time.monotonic()
    browser.open(page)
    assert time.monotonic() - started < 20
    assert count(browser) == "20000 of 20000 transcripts; 20 listed"
    started = time.monotonic()
    choose(browser, "arm", "m+msm(s)[steps=7]")
    choose(browser, "contains", "group 3-1")
    assert time.monotonic() - started < 3
    assert count(browser).startswith("11 of 20000")
    assert browser.errors == []


def test_a_phone_scrolls_only_downwards(browser: Chromium, transcripts_page: Path) -> None:
    size = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.open(transcripts_page)
    assert browser.value("document.documentElement.scrollWidth") <= 375
