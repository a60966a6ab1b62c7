import json
import re
import time

import pytest

from evals.report.comparison import compare
from evals.report.page import render_report
from evals.report.transcripts import json_block, transcripts_of
from megatron_msm.formats.eval_result import EvalResult
from tests.unit.evals.tasks.choice.results import result

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 &amp; ]]>"


def with_replies(label: str, replies: list[str]) -> EvalResult:
    one = result(label, {"near": [float(n % 3 - 1) for n in range(len(replies))]})
    rows = [
        row.model_copy(update={"details": {"reply": reply, "judge": "because", "epoch": 1}})
        for row, reply in zip(one.rows, replies, strict=True)
    ]
    return one.model_copy(update={"rows": tuple(rows)})


def test_texts_come_back_whole_and_end_no_script() -> None:
    html = render_report([with_replies("a", [HOSTILE, "two", "three"])], title="T")
    assert html.count("<script") == html.count("</script>") == 2
    block = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert block is not None
    first = json.loads(block[1])["rows"][0]
    assert first["texts"] == [["reply", HOSTILE], ["judge", "because"]]
    assert first["verdict"] == "mean log-odds: not above 0"
    assert (first["arm"], first["group"], first["evaluation"]) == ("a", "near", "choice")


def test_rows_without_texts_are_none() -> None:
    assert transcripts_of(compare([result("a", [1.0, 2.0])])) == []


@pytest.mark.slow
def test_forty_arms_and_twenty_thousand_transcripts_stay_usable() -> None:
    text = "word " * 400
    arms = [with_replies(f"arm {n}", [text] * 500) for n in range(40)]
    started = time.monotonic()
    html = render_report(arms, title="T")
    assert time.monotonic() - started < 120
    assert len(html) < 80e6
    assert len(json_block(transcripts_of(compare(arms)))) > 30e6
