import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evals.report.comparison import compare
from evals.report.figures import moving_average, shared_range, shorten, wrapped
from evals.report.inputs import LossCurve, StageFact
from evals.report.page import render_report
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.eval_result import EvalResult
from megatron_msm.formats.files import TMP_PREFIX, write_json_atomic
from tests.unit.evals.conftest import Run
from tests.unit.evals.tasks.choice.results import result, weights_of

VOID = {"meta", "br", "wbr", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects texts, tags, attributes and ids."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))


BASE = result("base", {"near": [0.0, 0.1, -0.1, 0.2], "far": [0.0, 0.3, -0.3]})
MOVED = result("midtrained", {"near": [1.0, 1.2, 0.8, 1.3], "far": [0.1, 0.1, -0.2]})
CURVE = LossCurve("midtrain", tuple(range(1, 41)), tuple(3.0 - 0.02 * n for n in range(40)))
FACT = StageFact(stage="prep docs", made="700 documents", where="docs.bin", seconds=125.0)
HOSTILE = "<script>alert(1)</script>\"'&`$x^2$"


def test_the_page_tells_everything() -> None:
    page = Page(render_report([BASE, MOVED], curves=[CURVE], facts=[FACT], title="My run"))
    for part in (
        "My run",
        "ONE SEED",
        "midtrained, compared with base",
        "moved toward homemade by",
        "near: moved toward homemade by",
        "far: no effect shown: the interval",
        "includes zero",
        "optimizer step",
        "loss, nats per token",
        "From 3.000 to 2.220 nats per token",
        "prep docs",
        "2 min 5 s",
        weights_of("base")[:16],
        "not recorded",
    ):
        assert part in page.text, part
    # Levels and changes for all items and two tiers, the heat map, and one loss curve.
    assert page.tags.count("svg") == 8


def test_the_page_needs_no_network() -> None:
    html = render_report([BASE, MOVED], curves=[CURVE], title="My run")
    page = Page(html)
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 2  # the items, and what shows them
    assert "http" not in html
    assert "@import" not in html
    for name, value in page.attributes:
        if name in ("href", "src"):
            assert value.startswith("#")


def test_ids_are_unique_and_references_resolve() -> None:
    html = render_report([BASE, MOVED], curves=[CURVE, CURVE], title="My run")
    page = Page(html)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 50
    references = re.findall(r"url\(#([^)]*)\)", html)
    references += [value[1:] for name, value in page.attributes if name == "href"]
    assert references
    assert set(references) <= set(ids)


def test_colours_are_the_pages_and_not_fixed_ones() -> None:
    html = render_report([BASE, MOVED], curves=[CURVE], title="My run")
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert not re.findall(r"#[0-9a-f]{6}\b", svg)


def test_texts_from_files_are_escaped() -> None:
    hostile = result(
        HOSTILE, {HOSTILE: [0.0, 1.0, 2.0]}, target=HOSTILE, other=HOSTILE, name=HOSTILE
    )
    model = hostile.model.model_copy(
        update={
            "path": HOSTILE,
            "lineage": [{"stage": HOSTILE, "identity": HOSTILE}, {HOSTILE: HOSTILE}],
        }
    )
    names = {"meaning": HOSTILE, "items": HOSTILE, "note": HOSTILE, "model": model}
    hostile = hostile.model_copy(update=names)
    second_model = model.model_copy(update={"label": HOSTILE + "2"})
    html = render_report(
        [hostile, hostile.model_copy(update={"model": second_model})],
        curves=[LossCurve(HOSTILE, (1, 2), (3.0, 2.0))],
        facts=[StageFact(stage=HOSTILE, made=HOSTILE, where=HOSTILE)],
        title=HOSTILE,
    )
    assert html.count("<script") == 2  # the items, and what shows them
    page = Page(html)
    assert page.tags.count("script") == 2
    # The label comes back whole in the table, and as text in the pictures.
    assert HOSTILE in page.text
    assert "$x^2$" in page.text


def test_one_result_is_described_and_not_compared() -> None:
    page = Page(render_report([MOVED], title="My run"))
    assert "prefers homemade, mean log-odds +0." in page.text
    assert "Nothing to compare with" in page.text
    assert "Change from" not in page.text


def test_one_indifferent_result_shows_no_preference() -> None:
    page = Page(render_report([result("base", [-1.0, 1.0])], title="My run"))
    assert "no preference shown, mean log-odds +0.00" in page.text


def seeds(arm: str, *levels: float) -> list[EvalResult]:
    return [
        result(f"{arm}#{seed}", [level, level + 0.1, level - 0.1])
        for seed, level in enumerate(levels)
    ]


def test_seeds_of_an_arm_are_one_line_and_their_spread_is_in_its_interval() -> None:
    arms = [
        result("base", [0.0, 0.1, -0.1]),
        *seeds("msm", 0.5, 2.5),
        result("aft", [1.0, 1.1, 0.9]),
    ]
    page = Page(render_report(arms, title="My run"))
    assert "ONE SEED" not in page.text
    assert re.search(r"msm ?2 ?\+1\.50 \[-1", page.text)
    # Means 0.5 and 2.5: the standard error is 1, and t(0.975, 1) = 12.71.
    assert "msm, compared with base no effect shown: the interval [-11.21, +14.21] includes" in (
        page.text
    )
    assert "is inside the noise floor of this comparison" in page.text
    assert "aft, compared with base moved toward homemade by 1.00" in page.text


def test_a_difference_in_differences_is_a_contrast_by_name() -> None:
    arms = [result(name, [level, level + 0.1]) for name, level in
            [("base", 0.0), ("msm(a)", 0.2), ("aft(x)", 0.1), ("msm(a)+aft(x)", 1.3)]]  # fmt: skip
    asked = "synergy=+msm(a)+aft(x),-msm(a),-aft(x),+base"
    page = Page(render_report(arms, contrasts=[asked], title="My run"))
    assert "synergy" in page.text
    assert "moved toward homemade by 1.00 [1.00, 1.00]" in page.text


@pytest.mark.parametrize(
    ("contrast", "part"),
    [
        ("x", "NAME=+ARM,-ARM"),
        ("x=base,midtrained", "with a sign"),
        ("x=+midtrained,-bse", "The arms are base, midtrained"),
        ("x=+midtrained,+base", "as many arms with + as with -"),
        ("x=+base,-base", "each arm once"),
    ],
)
def test_a_wrong_contrast_is_refused(contrast: str, part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        render_report([BASE, MOVED], contrasts=[contrast], title="My run")


@pytest.mark.parametrize("num_steps", [1, 2, 500])
def test_curves_of_any_length_and_with_gaps_are_drawn(num_steps: int) -> None:
    losses = tuple(3.0 if n % 3 == 0 else float("nan") for n in range(num_steps))
    curve = LossCurve("sft", tuple(range(1, num_steps + 1)), losses)
    page = Page(render_report([BASE], curves=[curve], title="My run"))
    not_finite = num_steps - (num_steps + 2) // 3
    assert (f"{not_finite} steps had no finite loss" in page.text) == (not_finite > 0)


def test_moving_average_by_hand() -> None:
    assert moving_average([1.0, 2.0, 3.0, 10.0]) == [1.5, 2.0, 5.0, 6.5]
    assert moving_average([1.0, float("nan"), 3.0]) == [1.0, 2.0, 3.0]


def test_small_helpers() -> None:
    assert shorten("a" * 60) == "a" * 60
    assert shorten("a" * 61) == "a" * 29 + "…" + "a" * 30
    assert wrapped("smollm2+msm(plain)+aft(things)[steps=12]") == (
        "smollm2+msm(plain)\n+aft(things)\n[steps=12]"
    )
    low, high = shared_range([BASE.headline_metric.overall, MOVED.headline_metric.overall])
    assert low < 0 < high


def test_report_command(msm_eval: Run, tmp_path: Path) -> None:
    for number, one in enumerate([BASE, MOVED]):
        write_json_atomic(tmp_path / f"{number}.json", one.model_dump(mode="json"))
    metrics = tmp_path / "metrics.jsonl"
    row = {"phase": "midtrain", "step": 1, "loss/lm_nats": 3.1, "time/step_s": 2.1}
    metrics.write_text(json.dumps(row) + "\n")
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([FACT.model_dump()]))
    out = tmp_path / "reports" / "report.html"
    ended = msm_eval(
        "report", out, "--result", tmp_path / "0.json", "--result", tmp_path / "1.json",
        "--metrics", f"midtrain={metrics}", "--facts", facts, "--title", "Cheese",
    )  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[0].startswith("midtrained, compared with base: moved toward `ho")
    assert ended.out.splitlines()[-1].endswith(str(out))
    page = Page(out.read_text(encoding="utf-8"))
    assert "Cheese" in page.text
    assert not list(out.parent.glob(f"{TMP_PREFIX}*"))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"version": 2}, "protocol (1 and 2)"),
        ({"items_sha256": "ee"}, "item file (dd and ee)"),
        ({"chat_template_sha256": "ee"}, "chat template (bb and ee)"),
        ({"temperature": 0.7}, "temperature (None and 0.7)"),
        ({"samples_per_item": 30}, "samples an item (1 and 30)"),
        ({"judge": "judge-1"}, "judge (None and judge-1)"),
        ({"settings": MOVED.protocol.settings | {"prompt_template": "?"}}, "prompt template"),
    ],
)
def test_results_of_different_protocols_are_compared_only_with_a_flag_and_a_stamp(
    msm_eval: Run, tmp_path: Path, changes: dict[str, object], part: str
) -> None:
    protocol = MOVED.protocol.model_copy(update=changes)
    assert protocol.sha256 != MOVED.protocol.sha256
    other = MOVED.model_copy(update={"protocol": protocol, "protocol_sha256": protocol.sha256})
    for number, one in enumerate([BASE, other]):
        write_json_atomic(tmp_path / f"{number}.json", one.model_dump(mode="json"))
    out = tmp_path / "report.html"
    arguments = ("report", out, "--result", tmp_path / "0.json", "--result", tmp_path / "1.json")
    refused = msm_eval(*arguments)
    assert refused.status == 2
    assert part in refused.err
    assert not out.exists()
    allowed = msm_eval(*arguments, "--across-protocols")
    assert allowed.status == 0
    assert f"DIFFERENT PROTOCOLS: `midtrained` and `base` differ in their {part}" in allowed.out
    page = Page(out.read_text(encoding="utf-8"))
    assert "DIFFERENT PROTOCOLS" in page.text
    assert part in page.text


def test_results_of_other_metrics_or_groups_are_never_one_contrast() -> None:
    task = BASE.protocol.model_copy(update={"task": "other"})
    for other in (
        result("x", {"near": [1.0, 2.0]}),
        MOVED.model_copy(update={"protocol": task, "protocol_sha256": task.sha256}),
    ):
        with pytest.raises(DataFormatError, match="metrics or groups"):
            compare([BASE, other], across_protocols=True)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--result", "gone.json"], "gone.json"),
        (["--result", "0.json", "--result", "0.json"], "--label"),
        (["--result", "0.json", "--result", "other.json"], "protocol"),
        (["--result", "0.json", "--metrics", "x"], "PHASE=metrics.jsonl"),
        (["--result", "0.json", "--facts", "gone.json"], "gone.json"),
        ([], "--result"),
        (["--choice", "0.json", "--choice", "other.json"], "--result 0.json --result other.json"),
    ],
)
def test_bad_input_leaves_no_report(
    msm_eval: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    protocol = MOVED.protocol.model_copy(update={"version": 2})
    other = MOVED.model_copy(update={"protocol": protocol, "protocol_sha256": protocol.sha256})
    write_json_atomic(tmp_path / "0.json", BASE.model_dump(mode="json"))
    write_json_atomic(tmp_path / "other.json", other.model_dump(mode="json"))
    ended = msm_eval("report", "report.html", *options)
    assert ended.status == 2
    assert part in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "report.html").exists()


def test_report_command_gives_its_verdicts_as_json(msm_eval: Run, tmp_path: Path) -> None:
    hostile = MOVED.model.model_copy(update={"label": "后 after \x1b[31m"})
    for number, one in enumerate([BASE, MOVED.model_copy(update={"model": hostile})]):
        write_json_atomic(tmp_path / f"{number}.json", one.model_dump(mode="json"))
    choices = ["--result", tmp_path / "0.json", "--result", tmp_path / "1.json"]
    ended = msm_eval("report", tmp_path / "report.html", *choices, "--json")
    assert ended.err == ""
    shown = json.loads(ended.out)
    assert shown["report"] == str(tmp_path / "report.html")
    all_items, near, far = shown["verdicts"]
    assert all_items.startswith(
        "后 after \N{REPLACEMENT CHARACTER}[31m, compared with base: moved to"
    )
    assert near.startswith("  near: moved toward `homemade` by")
    assert far.startswith("  far: no effect shown")
